"""What only the latest SDK can ask for; older ones do not run this file."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import pytest
from e2b import PtySize
from e2b.exceptions import NotFoundException, SandboxException


async def test_stream_input_feeds_a_command(box: Any, ok: Any) -> None:
    handle = await ok(box.commands.run("head -c 300000 | sha256sum", background=True, stdin=True))
    pieces = [b"x" * 100_000, "y" * 100_000, b"z" * 100_000]
    if type(box).__name__ == "Sandbox":
        await ok(box.commands.stream_input(handle.pid, pieces))
    else:
        async with box.commands.stream_input(handle.pid) as stream:
            for piece in pieces:
                await stream.send(piece)
    expected = hashlib.sha256(b"x" * 100_000 + b"y" * 100_000 + b"z" * 100_000).hexdigest()
    assert (await ok(handle.wait())).stdout == f"{expected}  -\n"


async def test_stream_input_types_into_a_terminal(sandbox: Any) -> None:
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=30)
    sandbox.pty.stream_input(terminal.pid, [b"echo $((6", "*7))\n", b"exit\n"])
    seen = bytearray()
    terminal.wait(on_pty=seen.extend)
    assert b"42" in seen


async def test_stream_input_to_an_unknown_process_is_not_found(sandbox: Any) -> None:
    with pytest.raises(NotFoundException):
        sandbox.commands.stream_input(999_999, [b"x"])


async def test_write_from_pieces(sandbox: Any) -> None:
    sandbox.files.write("pieces", iter([b"one ", b"two ", b"three"]))
    assert sandbox.files.read("pieces") == "one two three"


async def test_the_same_idempotency_key_makes_one_sandbox(ok: Any, face: Any, sdk: dict[str, Any]) -> None:
    key = secrets.token_hex(8)
    first = await ok(face.create(timeout=60, idempotency_key=key, **sdk))
    again = await ok(face.create(timeout=60, idempotency_key=key, **sdk))
    assert again.sandbox_id == first.sandbox_id
    with pytest.raises(SandboxException):
        await ok(face.create(timeout=61, idempotency_key=key, **sdk))
    await ok(first.kill())


async def test_no_time_at_all_is_refused(ok: Any, face: Any, sdk: dict[str, Any]) -> None:
    with pytest.raises(SandboxException, match="400: Timeout must be greater than 0"):
        await ok(face.create(timeout=0, **sdk))
