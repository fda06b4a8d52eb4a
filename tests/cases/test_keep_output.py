"""Output: every byte, in order, whatever it is, however much, and the exit code after the last one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2b import CommandExitException, TimeoutException

from tests.sdk.wire import envelope, messages, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2b import Sandbox

    from tests.live import Stack
    from tests.sdk.wire import Agent

_BYTES = 50_000_000


@pytest.fixture(scope="module", params=["base", "base-process", "base-gvisor"])
def template(request: pytest.FixtureRequest) -> str:
    """Return the template that a test runs on. A hardened container pipes as any other."""
    return str(request.param)


def chunks(agent: Agent, command: str, pause_s: float = 0.0) -> Iterator[bytes]:
    """Yield what a command writes to stdout, as it comes; wait between two pieces where told to."""
    headers = {**agent.headers, "Content-Type": "application/connect+json"}
    content = envelope(shell(command))
    with agent.wire.http.stream("POST", "/process.Process/Start", content=content, headers=headers) as answer:
        for flags, message in messages(answer.iter_raw()):
            if not flags and "data" in message["event"]:
                yield base64.b64decode(message["event"]["data"].get("stdout", ""))
                time.sleep(pause_s)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf 'no-newline'", "no-newline"),
        (r"printf 'a\n\n\nb\n'", "a\n\n\nb\n"),
        (r"for i in 1 2 3; do printf '\r%d%%' $i; done", "\r1%\r2%\r3%"),
        (r"printf 'a\0b'", "a\0b"),
        ("true", ""),
    ],
)
def test_nothing_is_added_or_lost(sandbox: Sandbox, command: str, expected: str) -> None:
    result = sandbox.commands.run(command)
    assert (result.stdout, result.exit_code) == (expected, 0)


def test_the_exit_code_comes_after_the_last_byte(sandbox: Sandbox) -> None:
    for code in range(1, 11):
        with pytest.raises(CommandExitException) as caught:
            sandbox.commands.run(f"head -c 70000 /dev/zero | tr '\\0' x; printf end; exit {code}")
        assert (caught.value.exit_code, len(caught.value.stdout), caught.value.stdout[-4:]) == (code, 70003, "xend")


def test_bytes_that_are_no_text_raise_nothing_and_stay_exact(sandbox: Sandbox, agent: Agent) -> None:
    assert sandbox.commands.run("head -c 1000 /dev/urandom").exit_code == 0
    surrogate = sandbox.commands.run(r"printf 'a\xed\xa0\x80b\xff'").stdout
    assert (surrogate[0], surrogate[-1], surrogate.count("\ufffd") > 0) == ("a", "\ufffd", True)
    raw = b"".join(chunks(agent, r"printf '\xed\xa0\x80\xff\xc3'"))
    assert raw == b"\xed\xa0\x80\xff\xc3"


def test_fifty_megabytes_arrive_while_the_gateway_stays_small(agent: Agent, roomy_stack: Stack) -> None:
    before = resident_mb(roomy_stack.pid_of("gateway"))
    digest, size = hashlib.sha256(), 0
    for piece in chunks(agent, f"head -c {_BYTES} /dev/zero | tr '\\0' y"):
        digest.update(piece)
        size += len(piece)
    assert (size, digest.hexdigest()) == (_BYTES, hashlib.sha256(b"y" * _BYTES).hexdigest())
    assert resident_mb(roomy_stack.pid_of("gateway")) - before < 32


def test_a_slow_reader_costs_no_memory(agent: Agent, roomy_stack: Stack) -> None:
    before = resident_mb(roomy_stack.pid_of("gateway"))
    for number, _ in enumerate(chunks(agent, f"timeout 5 head -c {_BYTES} /dev/zero", pause_s=0.01)):
        if number == 100:
            break
    assert resident_mb(roomy_stack.pid_of("gateway")) - before < 32
    assert agent.run("echo here")[0] == "here\n"


def resident_mb(pid: int) -> float:
    """Return how much memory a process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def test_a_time_limit_ends_what_the_command_started(sandbox: Sandbox) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 301 & sleep 302 & wait", timeout=2)
    assert 1.9 <= time.monotonic() - began < 4
    time.sleep(1)
    left = sandbox.commands.run("ps -eo stat,args | grep -E '^Z|[s]leep 30[12]' || true").stdout
    assert left == ""


def test_reading_without_input_ends_at_once(sandbox: Sandbox) -> None:
    began = time.monotonic()
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("python3 -c 'input()'")
    assert "EOFError" in caught.value.stderr
    assert time.monotonic() - began < 5


def test_a_prompt_without_end_is_cut_and_what_it_said_is_kept(sandbox: Sandbox) -> None:
    said: list[str] = []
    with pytest.raises(TimeoutException):
        sandbox.commands.run("while :; do echo again?; sleep 0.1; done", timeout=1, on_stdout=said.append)
    assert "".join(said).startswith("again?\nagain?\n")


def test_a_heredoc_and_then_another_command(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("cat <<'END'\n$x `y`\nEND\necho after").stdout == "$x `y`\nafter\n"
    assert sandbox.commands.run("echo next").stdout == "next\n"


def test_a_client_that_leaves_blocks_no_writer(sandbox: Sandbox, agent: Agent) -> None:
    handle = sandbox.commands.run(
        "seq 1 200000; echo finished > left.txt; read line; echo got $line", stdin=True, background=True
    )
    handle.disconnect()
    assert (
        sandbox.commands.run("timeout 20 sh -c 'until [ -e left.txt ]; do sleep 0.05; done'; cat left.txt").stdout
        == "finished\n"
    )
    again = sandbox.commands.connect(handle.pid)
    sandbox.commands.send_stdin(handle.pid, "it\n")
    assert again.wait().stdout.endswith("got it\n")
    sandbox.commands.run("rm left.txt")


def test_a_reader_that_comes_back_loses_and_doubles_nothing(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("for i in $(seq 1 40); do echo $i; sleep 0.05; done", background=True)
    first: list[str] = []
    for stdout, _, _ in handle:
        first.append(stdout or "")
        if len("".join(first).split()) >= 10:
            break
    handle.disconnect()
    second = sandbox.commands.connect(handle.pid).wait().stdout.split()
    assert second == [str(number) for number in range(int(second[0]), 41)]
    assert json.loads("[" + ",".join("".join(first).split()) + "]") == list(range(1, len("".join(first).split()) + 1))
