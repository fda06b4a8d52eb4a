"""The sandbox's side of a call: its body, piece by piece as it is asked for, and its leaving."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from corekit.errors import TooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Incoming:
    """Reads what one request's body has; nothing of it is read before somebody can use it."""

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._all_read = asyncio.Event()
        if not has_body:
            self._all_read.set()
        self.count = 0
        self.most: int | None = None

    @property
    def all_read(self) -> bool:
        """Say whether nothing of the body is left."""
        return self._all_read.is_set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body. Raises TooLarge and ClientGone."""
        while not self.all_read:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            piece = message.get("body", b"")
            self.count += len(piece)
            if self.most is not None and self.count > self.most:
                raise TooLarge(f"The body is larger than {self.most} bytes.")
            if not message.get("more_body"):
                self._all_read.set()
            if piece:
                yield piece

    async def whole(self, most: int) -> bytes:
        """Return all of the body, which may have this size at most. Raises TooLarge and ClientGone."""
        self.most = min(most, self.most if self.most is not None else most)
        return b"".join([piece async for piece in self.pieces()])

    async def departure(self) -> None:
        """Return once the client has gone, which shows only after its body was read."""
        await self._all_read.wait()
        await self.end()

    async def end(self) -> None:
        """Return once the client has gone; what is left of its body is thrown away."""
        while (await self._receive())["type"] == "http.request":
            pass
