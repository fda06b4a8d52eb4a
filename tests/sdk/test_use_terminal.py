"""A pseudo terminal through the SDK."""

from __future__ import annotations

import asyncio
import time

from e2b import AsyncSandbox, PtySize, Sandbox


def test_type_and_see(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=30)
    sandbox.pty.send_stdin(terminal.pid, b"stty size; tty; exit\n")
    seen = bytearray()
    terminal.wait(on_pty=seen.extend)
    assert b"24 80" in seen
    assert b"/dev/pts/" in seen


def test_resize(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=30)
    sandbox.pty.resize(terminal.pid, PtySize(rows=50, cols=132))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
    seen = bytearray()
    terminal.wait(on_pty=seen.extend)
    assert b"50 132" in seen


def test_kill(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=30)
    assert sandbox.pty.kill(terminal.pid) is True
    time.sleep(0.2)
    assert terminal.pid not in [process.pid for process in sandbox.commands.list()]


async def test_type_and_see_async(async_sandbox: AsyncSandbox) -> None:
    seen = bytearray()
    terminal = await async_sandbox.pty.create(PtySize(rows=24, cols=80), on_data=seen.extend, timeout=30)
    await async_sandbox.pty.send_stdin(terminal.pid, b"echo $((6*7)); exit\n")
    async with asyncio.timeout(10):
        await terminal.wait()
    assert b"42" in seen
