"""`gatehouse shell`: a real terminal on both ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.cli.conftest import Shell

pytestmark = pytest.mark.stack


class Terminal:
    """A terminal whose keys are pressed by the test."""

    def __init__(self, rows: int, columns: int) -> None:
        self.keys, self.end = pty.openpty()
        self.resize(rows, columns)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        """Change its size."""
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.keys, text.encode())

    def wait_for(self, text: str, timeout_s: float = 15) -> None:
        """Return when the screen has shown a text."""
        until = time.monotonic() + timeout_s
        while text.encode() not in self.seen:
            left = until - time.monotonic()
            assert left > 0, self.seen
            if select.select([self.keys], [], [], left)[0]:
                self.seen += os.read(self.keys, 65536)

    def modes(self) -> list[object]:
        """Return how it treats keys."""
        return termios.tcgetattr(self.end)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(30, 100)
    yield made
    os.close(made.keys)
    os.close(made.end)


def start(shell: Shell, box: str, terminal: Terminal) -> subprocess.Popen[bytes]:
    return shell.popen(
        "shell", box, stdin=terminal.end, stdout=terminal.end, stderr=terminal.end, start_new_session=True
    )


def test_keys_go_in_and_the_screen_comes_out(shell: Shell, box: str, terminal: Terminal) -> None:
    before = terminal.modes()
    client = start(shell, box, terminal)
    terminal.type("echo $((6 * 7))-$(tput cols)x$(tput lines)\n")
    terminal.wait_for("42-100x30")
    assert terminal.modes() != before

    terminal.type("exit 5\n")

    assert client.wait(15) == 5
    assert terminal.modes() == before


def test_a_new_size_reaches_the_inside(shell: Shell, box: str, terminal: Terminal) -> None:
    client = start(shell, box, terminal)
    terminal.type("echo rea''dy\n")
    terminal.wait_for("ready")

    terminal.resize(50, 132)
    os.kill(client.pid, 28)
    terminal.type("sleep 0.5; echo $(tput cols)x$(tput lines)\n")

    terminal.wait_for("132x50")
    terminal.type("exit\n")
    assert client.wait(15) == 0


def test_ctrl_c_is_a_key_like_any_other(shell: Shell, box: str, terminal: Terminal) -> None:
    client = start(shell, box, terminal)
    terminal.type("echo sta''rted; sleep 60\n")
    terminal.wait_for("started")
    terminal.type("\x03")
    terminal.type("echo co''de=$?\n")
    terminal.wait_for("code=130")
    terminal.type("\x04")
    assert client.wait(15) == 0


def test_without_a_terminal_it_says_what_to_use(shell: Shell, box: str) -> None:
    assert shell.failed("shell", box) == (
        2,
        "A shell needs a terminal on both ends; use `gatehouse exec` in scripts.",
    )
