"""The answer to a client, written straight to its connection."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxes.gateway import http1

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from sandboxes.gateway.http1 import Fields

_PHRASES = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


_LAST_CHUNK = b"0\r\n\r\n"


class ClientGone(Exception):
    """The client closed its connection."""


class Reply(web.StreamResponse):
    """One answer: `start`, then `send` as often as needed, then `finish`; or `abort` at any time.

    aiohttp's own response machinery is passed by: it would copy and rewrite the header fields. To aiohttp
    this is a response that is already complete when the handler returns.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        super().__init__()
        self._protocol = request.protocol
        self._transport = request.transport
        self._keep = request.keep_alive
        self._modern = request.version >= (1, 1)
        self._bodiless = request.method == "HEAD"
        self._chunks = False
        self._head = b""
        self.started = False  # whether anything was sent: from then on no other answer is possible
        self.sent = 0

    def start(self, status: int, fields: Fields, *, length: int | None) -> None:
        """Prepare the head; it leaves with the first body bytes, `flush` or `finish`.

        `length` None sends the body in chunks (or, to an HTTP/1.0 client, until the connection ends).
        """
        self._status = status
        fields = list(fields)
        if status < 200 or status in {204, 304}:
            self._bodiless = True
        elif length is not None:
            fields.append((b"Content-Length", b"%d" % length))
        elif self._bodiless:
            pass
        elif self._modern:
            fields.append((b"Transfer-Encoding", b"chunked"))
            self._chunks = True
        else:
            self._keep = False
        if not self._keep:
            fields.append((b"Connection", b"close"))
        elif not self._modern:
            fields.append((b"Connection", b"keep-alive"))
        self._head = http1.render_head(b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b"Status")), fields)

    def switch(self, fields: Fields) -> None:
        """Answer 101 at once; what follows are raw bytes. Raises ClientGone."""
        self._status = 101
        self._keep = False
        self._head = http1.render_head(b"HTTP/1.1 101 Switching Protocols", fields)
        self.flush()

    def send(self, pieces: list[bytes], *, last: bool = False) -> None:
        """Send body bytes; with `last` the body ends with them. Raises ClientGone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ClientGone
        size = 0
        for piece in pieces:
            size += len(piece)
        if self._bodiless or not size:
            return
        self.started = True
        self.sent += size
        out = [self._head] if self._head else []
        self._head = b""
        if self._chunks:
            out.append(b"%x\r\n" % size)
            out += pieces
            out.append(b"\r\n" + _LAST_CHUNK if last else b"\r\n")
            self._chunks = not last
        else:
            out += pieces
        # One small write is one packet; joining big ones would only copy them once more.
        if size < 65536 or len(out) == 1:
            transport.write(b"".join(out))
        else:
            transport.writelines(out)

    def flush(self) -> None:
        """Send the head now, although no body byte is there yet. Raises ClientGone."""
        if self._head:
            transport = self._transport
            if transport is None or transport.is_closing():
                raise ClientGone
            self.started = True
            transport.write(self._head)
            self._head = b""

    @property
    def has_room(self) -> bool:
        """Whether the client has taken most of what was sent."""
        return not self._protocol.writing_paused

    async def wait_for_room(self, seconds: float) -> None:
        """Wait until the client has taken most of what was sent. Raises ClientGone, also when it takes too long."""
        if self._protocol.writing_paused:
            timer = asyncio.get_running_loop().call_later(seconds, self.abort)
            try:
                await self._protocol._drain_helper()
            except ConnectionError as error:
                raise ClientGone from error
            finally:
                timer.cancel()

    def finish(self) -> None:
        """End the body."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        tail = self._head
        self._head = b""
        if self._chunks and not self._bodiless:
            tail += _LAST_CHUNK
        if tail:
            self.started = True
            transport.write(tail)

    def abort(self) -> None:
        """Cut the client's connection: what was sent so far is not a whole answer."""
        self._keep = False
        if self._transport is not None:
            self._transport.abort()

    def close_after(self) -> None:
        """Make this the connection's last answer."""
        self._keep = False

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may carry another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head was sent by `start`."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the body was ended by `finish`."""


def whole(request: web.BaseRequest, status: int, fields: Fields, body: bytes, *, last: bool = False) -> Reply:
    """Send a complete small answer; `last` ends the connection after it."""
    reply = Reply(request)
    if last:
        reply.close_after()
    reply.start(status, fields, length=len(body))
    try:
        reply.send([body])
    except ClientGone:
        return reply
    reply.finish()
    return reply
