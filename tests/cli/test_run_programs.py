"""`gatehouse exec`: bytes in, bytes out, the command's exit code, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

pytestmark = pytest.mark.stack


def test_output_and_exit_code_are_the_commands(shell: Shell, box: str) -> None:
    assert shell.run("exec", box, "--", "sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert shell.run("exec", box, "true") == (0, b"", b"")
    assert shell.run("exec", box, "--", "sh", "-c", "kill -9 $$")[0] == 137
    assert shell.run("exec", box, "--", "sh", "-c", "exit 255")[0] == 255


def test_every_byte_comes_through(shell: Shell, box: str) -> None:
    sent = os.urandom(3_000_001)
    code, out, err = shell.run("exec", box, "cat", stdin=sent)
    assert (code, err) == (0, b"")
    assert out == sent


def test_no_input_is_its_end(shell: Shell, box: str) -> None:
    assert shell.run("exec", box, "--", "cat", stdin=b"") == (0, b"", b"")


def test_a_command_that_reads_nothing_ends_all_the_same(shell: Shell, box: str) -> None:
    client = shell.popen("exec", box, "echo", "done", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.read() == b"done\n"
    assert client.wait(10) == 0
    client.stdout.close()
    assert client.stdin is not None
    client.stdin.close()


def test_environment_folder_and_user(shell: Shell, box: str) -> None:
    assert shell.ok("exec", box, "--", "sh", "-c", "echo $GREETING") == "hello"
    assert shell.ok("exec", "-e", "A=1 2", "-e", "B==", box, "--", "sh", "-c", "echo $A$B") == "1 2="
    assert shell.ok("exec", "-w", "/tmp", box, "pwd") == "/tmp"
    assert shell.ok("exec", "-u", "root", box, "id", "-un") == "root"
    assert shell.ok("exec", box, "id", "-un") == "user"


def test_options_of_the_command_are_left_alone(shell: Shell, box: str) -> None:
    assert shell.ok("exec", box, "echo", "--json", "-u", "x") == "--json -u x"
    assert shell.ok("exec", box, "--", "echo", "--", "-e") == "-- -e"


def test_arguments_are_never_parsed_by_a_shell(shell: Shell, box: str) -> None:
    assert shell.ok("exec", box, "echo", "$(id)", "a';id;'", "*") == "$(id) a';id;' *"


def test_a_command_that_is_not_there(shell: Shell, box: str) -> None:
    code, said = shell.failed("exec", box, "no-such-command")
    assert code == 127
    assert "no-such-command" in said


def test_a_time_limit(shell: Shell, box: str) -> None:
    began = time.monotonic()
    code, said = shell.failed("exec", "--timeout", "1", box, "sleep", "60")
    assert (code, said) == (124, "The command took longer than --timeout and was killed.")
    assert time.monotonic() - began < 10
    assert shell.run("exec", box, "pgrep", "sleep")[0] == 1


def test_output_comes_as_it_is_written(shell: Shell, box: str) -> None:
    client = shell.popen("exec", box, "--", "sh", "-c", "echo one; read line; echo $line", stdin=-1, stdout=-1)
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline() == b"one\n"
    client.stdin.write(b"two\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"two\n"
    client.stdin.close()
    assert client.wait(10) == 0
    client.stdout.close()


@pytest.mark.parametrize(
    ("script", "presses"),
    [("echo up; exec sleep 60", 1), ("trap '' TERM; echo up; while :; do sleep 1; done", 2)],
    ids=["ends at once", "has to be killed"],
)
def test_ctrl_c_ends_the_command_inside(shell: Shell, box: str, script: str, presses: int) -> None:
    client = shell.popen("exec", box, "--", "bash", "-c", script, stdin=subprocess.DEVNULL, stdout=-1)
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    for _ in range(presses):
        client.send_signal(signal.SIGINT)
        time.sleep(0.5)

    assert client.wait(10) == 130
    client.stdout.close()
    assert shell.run("exec", box, "--", "pgrep", "-f", "sleep 60|trap")[0] == 1


def test_a_reader_that_has_seen_enough_is_no_traceback(shell: Shell, box: str) -> None:
    reader, writer = os.pipe()
    client = shell.popen("exec", box, "yes", stdin=subprocess.DEVNULL, stdout=writer, stderr=-1)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    assert client.wait(20) == 141
    assert client.stderr is not None
    assert client.stderr.read() == b""
    client.stderr.close()
