"""`gatehouse execute`: code in a sandbox of its own, through the complete system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.reality import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell
    from tests.live import Stack

pytestmark = pytest.mark.stack


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Return what writes a file and returns its path."""

    def write(text: str, name: str = "code.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_output_and_exit_code_are_the_codes(shell: Shell, stack: Stack, file: Any) -> None:
    before = stack.live_ids()
    code = "import sys\nprint(sum(range(10)))\nprint('gr\u00fcn', file=sys.stderr)\nsys.exit(3)\n"

    assert shell.run("execute", file(code)) == (3, b"45\n", "gr\u00fcn\n".encode())
    assert stack.live_ids() == before


def test_what_is_known_about_it(shell: Shell, file: Any) -> None:
    done = shell.json("execute", "--json", file("print(sum(range(10)))"))

    assert (done["state"], done["stdout"], done["exit_code"]) == ("completed", "45\n", 0)
    assert (done["floor"], done["tier"], done["template"]) == ("language", "process", "base-process")
    assert (done["risk"]["band"], done["risk"]["tier"]) == ("low", "L0")
    assert shell.json("info", done["sandbox_id"])["state"] == "ended"
    assert shell.json("info", done["sandbox_id"])["tier"] == "process"


def test_the_code_is_recorded_as_a_command_of_its_sandbox(shell: Shell, file: Any) -> None:
    done = shell.json("execute", "--json", file("print('very-private')"))

    # The node's events come in within seconds.
    assert eventually(lambda: "command.start" in shell.ok("logs", done["sandbox_id"]))
    assert "very-private" not in shell.ok("logs", "--json", done["sandbox_id"])


def test_bash_files_run_in_bash_at_the_tier_that_they_need(shell: Shell, file: Any) -> None:
    done = shell.json("execute", "--json", file("echo $((6 * 7)); uname -s; cat /etc/os-release | head -1", "a.sh"))

    assert (done["language"], done["tier"], done["floor"]) == ("bash", "container", "container")
    assert done["stdout"].startswith("42\nLinux\n")


def test_code_from_standard_input(shell: Shell) -> None:
    assert shell.run("execute", "-e", "GREETING=hello", "-", stdin=b"import os\nprint(os.environ['GREETING'])") == (
        *(0, b"hello\n"),
        b"",
    )


def test_a_stronger_tier(shell: Shell, file: Any) -> None:
    done = shell.json("execute", "--json", "--tier", "L2", file("print(1)"))
    assert (done["requested_tier"], done["tier"]) == ("container", "container")


def test_at_its_time_limit_it_is_killed(shell: Shell, stack: Stack, file: Any) -> None:
    before = stack.live_ids()
    code, out, err = shell.run("execute", "--timeout", "1", file("print('begun', flush=True)\nwhile True: pass"))

    assert (code, out) == (124, b"begun\n")
    assert err == b"gatehouse: The code took longer than --timeout and was killed.\n"
    assert stack.live_ids() == before


def test_a_killed_interpreter_has_a_signals_code(shell: Shell, file: Any) -> None:
    assert shell.run("execute", "-l", "bash", file("kill -9 $$"))[0] == 137


def test_more_output_than_is_kept(shell: Shell, file: Any) -> None:
    done = shell.json("execute", "--json", file("for _ in range(3000): print('x' * 1000)"))
    assert (done["state"], len(done["stdout"]), done["truncated"]) == ("completed", 1024 * 1024, True)


def test_code_that_no_tier_here_is_strong_enough_for(shell: Shell, stack: Stack, file: Any) -> None:
    before = stack.live_ids()
    status, said = shell.failed("execute", file("import ctypes\nctypes.CDLL(None).system(b'cat /etc/shadow')"))

    assert status == 1
    assert "This host does not offer microvm (L3)" in said
    assert stack.live_ids() == before


def test_a_file_that_is_none(shell: Shell, tmp_path: Path) -> None:
    assert shell.failed("execute", str(tmp_path / "missing.py"))[0] == 2
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")
    assert shell.failed("execute", str(tmp_path / "binary.py")) == (2, f"{tmp_path / 'binary.py'} is not UTF-8.")
