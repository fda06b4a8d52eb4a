"""One connected socket, of a sandbox or of a server, that is closed exactly once."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import TYPE_CHECKING

from sandboxes.egress.poller import HANGUP

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sandboxes.egress.poller import Poller

_RESET = struct.pack("ii", 1, 0)
_PIECE = 64 * 1024
_UNDER_WAY = (0, errno.EINPROGRESS)


class Gone(Exception):
    """The other end closed or broke its connection."""


class Wire:
    """A non-blocking stream socket with the bytes that were read ahead from it."""

    __slots__ = ("_descriptor", "_loop", "_poller", "_waiters", "ahead", "hangup", "open", "sock")

    def __init__(self, poller: Poller, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.sock = sock
        self.ahead = bytearray()
        self.open = True
        # Told when the other end has closed both directions, while somebody waits for something else.
        self.hangup: Callable[[], object] | None = None
        self._loop = loop
        self._poller = poller
        self._descriptor = sock.fileno()
        # One may wait to read while another one waits to write.
        self._waiters: list[asyncio.Future[None]] = []
        poller.add(self._descriptor, self._told)

    def beside(self, sock: socket.socket) -> Wire:
        """Return another socket's wire in the same process."""
        return Wire(self._poller, sock, self._loop)

    def _told(self, what: int) -> None:
        if what & HANGUP and self.hangup is not None:
            self.hangup()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _news(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def tell(self, told: Callable[[int], None]) -> None:
        """Have somebody else told what happens to the socket, from now on."""
        self._poller.change(self._descriptor, told)

    async def connected(self) -> None:
        """Return once a connection that was begun stands. Raises OSError."""
        while True:
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error not in _UNDER_WAY:
                raise OSError(error, "the connection was not made")
            with contextlib.suppress(OSError):
                self.sock.getpeername()
                return
            await self._news()

    async def more(self) -> bool:
        """Read on behind the bytes that are there; False at the end of the stream. Raises Gone."""
        data = await self.receive()
        self.ahead += data
        return bool(data)

    async def receive(self) -> bytes:
        """Return the next bytes from the socket, empty at its end. Raises Gone."""
        while True:
            try:
                return self.sock.recv(_PIECE)
            except BlockingIOError:
                await self._news()
            except OSError as error:
                raise Gone(str(error)) from None

    def is_quiet(self) -> bool:
        """Tell whether the connection stands and nothing has come on it."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def take(self) -> bytes:
        """Return and forget what was read ahead."""
        data = bytes(self.ahead)
        self.ahead.clear()
        return data

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises Gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                await self._news()
            except OSError as error:
                raise Gone(str(error)) from None

    def send_at_once(self, data: bytes) -> None:
        """Write what the socket takes without waiting. Raises OSError."""
        self.sock.send(data)

    def release(self) -> socket.socket:
        """Give the socket to somebody else, who closes it."""
        self.open = False
        self._poller.release(self._descriptor)
        return self.sock

    def close(self) -> None:
        """End the connection in good order. Safe to repeat."""
        if self.open:
            self.open = False
            self._poller.forget(self._descriptor)
            self.sock.close()

    def reset(self) -> None:
        """End the connection at once: what was not sent is thrown away, and TCP says RST. Safe to repeat."""
        if self.open:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()
