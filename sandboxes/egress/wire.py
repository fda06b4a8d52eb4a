"""One connected socket, of a sandbox or of a server, that is closed exactly once."""

from __future__ import annotations

import asyncio
import socket
import struct

_RESET = struct.pack("ii", 1, 0)
_PIECE = 64 * 1024


class Gone(Exception):
    """The other end closed or broke its connection."""


class Wire:
    """A non-blocking stream socket with the bytes that were read ahead from it."""

    __slots__ = ("_loop", "ahead", "open", "sock")

    def __init__(self, sock: socket.socket, ahead: bytes = b"") -> None:
        self.sock = sock
        self.ahead = bytearray(ahead)
        self.open = True
        self._loop = asyncio.get_running_loop()

    async def more(self) -> bool:
        """Read on behind the bytes that are there; False at the end of the stream."""
        data = await self.receive()
        self.ahead += data
        return bool(data)

    async def receive(self) -> bytes:
        """Return the next bytes from the socket, empty at its end. Raises Gone."""
        try:
            return await self._loop.sock_recv(self.sock, _PIECE)
        except OSError as error:
            raise Gone(str(error)) from None

    def take(self) -> bytes:
        """Return and forget what was read ahead."""
        data = bytes(self.ahead)
        self.ahead.clear()
        return data

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises Gone."""
        try:
            await self._loop.sock_sendall(self.sock, data)
        except OSError as error:
            raise Gone(str(error)) from None

    def finish(self) -> None:
        """Tell the other end that nothing more comes."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """End the connection in good order. Safe to repeat."""
        if self.open:
            self.open = False
            self.sock.close()

    def reset(self) -> None:
        """End the connection at once: what was not sent is thrown away, and TCP says RST. Safe to repeat."""
        if self.open:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()
