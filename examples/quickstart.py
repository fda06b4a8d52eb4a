"""A sandbox from its first to its last moment, with the unchanged E2B SDK (`pip install e2b`).

Set E2B_API_KEY, E2B_API_URL and E2B_SANDBOX_URL as `make run` printed them, then:

    .venv/bin/python examples/quickstart.py
"""

import sys

from e2b import PtySize, Sandbox

ANALYSIS = """\
import statistics

sales = {"January": 120, "February": 180, "March": 240}
for month, amount in sales.items():
    print(f"{month:<10}{amount:>5}", flush=True)
with open("/home/user/report.txt", "w") as report:
    report.write(f"mean: {statistics.mean(sales.values())}\\n")
"""


def main() -> None:
    """Create, write, run, list, read, extend, type, kill."""
    # The sandbox ends by itself after 300 seconds, should this program never come to its end.
    sandbox = Sandbox.create(timeout=300)
    print(f"sandbox {sandbox.sandbox_id} is running")
    try:
        sandbox.files.write("/home/user/analysis.py", ANALYSIS)

        # Output arrives while the program runs, not when it is done.
        result = sandbox.commands.run(
            "python3 /home/user/analysis.py",
            timeout=30,
            on_stdout=lambda text: print(text, end=""),
            on_stderr=lambda text: print(text, end="", file=sys.stderr),
        )
        print(f"exit code {result.exit_code}")

        for entry in sandbox.files.list("/home/user"):
            print(f"{entry.size:>8}  {entry.path}")
        print(sandbox.files.read("/home/user/report.txt"), end="")

        # Ten minutes from now, whatever was left before.
        sandbox.set_timeout(600)

        # A terminal: programs see a screen of 80 columns, and both output streams are one.
        terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=30)
        sandbox.pty.send_stdin(terminal.pid, b"echo columns: $(tput cols); exit\n")
        terminal.wait(on_pty=lambda data: print(data.decode(errors="replace"), end=""))
    finally:
        # True: it was there and is gone now.
        print(f"killed: {sandbox.kill()}")


if __name__ == "__main__":
    main()
