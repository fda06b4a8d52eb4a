"""Speaks to the node's tap as the gateway does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any

from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.node.rig import Rig


def event(sandbox: str, *, phase: str = "intent", **changes: Any) -> dict[str, Any]:
    """Return an event as the gateway sends it."""
    return {
        "id": secrets.token_hex(16),
        "sandbox": sandbox,
        "generation": 1,
        "code": "command.start",
        "phase": phase,
        "key_id": "0a" * 8,
        "origin": "203.0.113.7",
        "request_id": "r-1",
        "tool_name": "bash",
        "args_hash": "ab" * 32,
        "args_shape": {"cmd": "str"},
        "risk_score": 40,
        "risk_reasons": ["network tool"],
        "outcome": None,
        "duration_ms": None,
        "details": {"pty": False},
    } | changes


class Line:
    """One connection of the gateway to the tap."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._number = 0

    async def tell(self, body: object) -> dict[str, Any]:
        """Send an event and return the answer to it, without its number."""
        self._number += 1
        self.writer.write(json.dumps({"n": self._number, "event": body}).encode() + b"\n")
        answer = await self.answer()
        assert answer.pop("n") == self._number
        return answer

    async def answer(self) -> dict[str, Any]:
        """Return the next answer."""
        async with asyncio.timeout(rig.PATIENCE_S):
            return dict(json.loads(await self._reader.readline()))

    async def is_cut_off(self) -> bool:
        """Tell whether the node hangs up."""
        async with asyncio.timeout(rig.PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read() == b""
            return True


@contextlib.asynccontextmanager
async def connected(node: Rig) -> AsyncIterator[Line]:
    """Connect to a node's tap."""
    reader, writer = await asyncio.open_unix_connection(str(node.home / "run" / "tap.sock"))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
