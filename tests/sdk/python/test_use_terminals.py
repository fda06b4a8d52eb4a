"""Terminals through the SDK: create, type, resize, connect, kill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from e2b import CommandExitException, NotFoundException, PtySize
from e2b.exceptions import SandboxException


class Screen:
    """A terminal of either face, and what it has shown."""

    def __init__(self, box: Any) -> None:
        self.box = box
        self.shown = bytearray()
        self.handle: Any = None

    async def open(self, **options: Any) -> Screen:
        """Start the terminal."""
        size = PtySize(rows=24, cols=80)
        if type(self.box).__name__ == "Sandbox":
            self.handle = self.box.pty.create(size, timeout=30, **options)
        else:
            self.handle = await self.box.pty.create(size, on_data=self.shown.extend, timeout=30, **options)
        return self

    async def end(self) -> bytes:
        """Wait for the shell to end and return all that it showed."""
        if type(self.box).__name__ == "Sandbox":
            await asyncio.to_thread(self.handle.wait, on_pty=self.shown.extend)
        else:
            await self.handle.wait()
        return bytes(self.shown)


async def test_a_terminal_is_a_terminal(box: Any, ok: Any) -> None:
    screen = await Screen(box).open()
    await ok(box.pty.send_stdin(screen.handle.pid, b"stty size; tty; echo $((6*7)); exit\n"))
    shown = await screen.end()
    assert b"24 80" in shown
    assert b"/dev/pts/" in shown
    assert b"42" in shown


async def test_variables_and_directory_of_a_terminal(box: Any, ok: Any) -> None:
    screen = await Screen(box).open(envs={"GREETING": "hello"}, cwd="/tmp")
    await ok(box.pty.send_stdin(screen.handle.pid, b"echo $GREETING-$TERM-$PWD; exit\n"))
    assert b"hello-xterm-256color-/tmp" in await screen.end()


async def test_resize_reaches_the_program(box: Any, ok: Any) -> None:
    screen = await Screen(box).open()
    await ok(box.pty.resize(screen.handle.pid, PtySize(rows=50, cols=132)))
    await ok(box.pty.send_stdin(screen.handle.pid, b"stty size; exit\n"))
    assert b"50 132" in await screen.end()


async def test_kill_ends_a_terminal(box: Any, ok: Any) -> None:
    screen = await Screen(box).open()
    assert await ok(box.pty.kill(screen.handle.pid)) is True
    assert await ok(box.pty.kill(screen.handle.pid)) is False


async def test_connect_again_to_a_terminal(box: Any, ok: Any) -> None:
    screen = await Screen(box).open()
    await ok(box.pty.send_stdin(screen.handle.pid, b"FOO=kept\n"))
    await ok(screen.handle.disconnect())
    if type(box).__name__ == "Sandbox":
        screen.handle = box.pty.connect(screen.handle.pid)
    else:
        screen.handle = await box.pty.connect(screen.handle.pid, on_data=screen.shown.extend)
    await ok(box.pty.send_stdin(screen.handle.pid, b"echo still-$FOO; exit\n"))
    assert b"still-kept" in await screen.end()


async def test_exit_status_of_a_terminal(box: Any, ok: Any) -> None:
    screen = await Screen(box).open()
    await ok(box.pty.send_stdin(screen.handle.pid, b"exit 5\n"))
    with pytest.raises(CommandExitException) as caught:
        await screen.end()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("call", ["send_stdin", "resize"])
async def test_an_unknown_terminal_is_not_found(box: Any, ok: Any, call: str) -> None:
    argument = b"x" if call == "send_stdin" else PtySize(rows=1, cols=1)
    with pytest.raises((NotFoundException, SandboxException)):
        await ok(getattr(box.pty, call)(999_999, argument))
