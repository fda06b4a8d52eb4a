"""Servers inside a sandbox, and a client that asks them for a WebSocket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.gateway import doubles

if TYPE_CHECKING:
    from tests.gateway.place import Place


class Site:
    """An HTTP server inside the sandbox that remembers what it was asked."""

    def __init__(self, reply: bytes = doubles.answer(200, b"hello from inside")) -> None:
        self.requests: list[doubles.Request] = []
        self.connections = 0
        self.reply = reply

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        while request := await doubles.read_head(reader):
            request.body = await doubles.read_body(reader, request)
            self.requests.append(request)
            writer.write(self.reply)
            await writer.drain()


async def upgraded(place: Place, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a WebSocket on a port's host name."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return reader, writer


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """Read to the end; a reset is an end too."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
