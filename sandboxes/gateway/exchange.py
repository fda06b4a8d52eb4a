"""One request to a guest or to web and its answer back, streamed both ways without buffering."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from sandboxes.gateway import http1, upstream
from sandboxes.gateway.reply import ClientGone, Reply
from sandboxes.gateway.routes import AccessRevoked, SandboxGone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.gateway.http1 import AnswerHead, Fields
    from sandboxes.gateway.routes import Stream
    from sandboxes.gateway.settings import Limits

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientSilent(Exception):
    """The client stopped sending inside its request body."""


@dataclass(slots=True)
class Outcome:
    """What became of an exchange. `status` is the upstream's, `complete` says its answer came whole."""

    reply: Reply
    status: int = 0
    complete: bool = False
    sent_whole: bool = False
    bytes_in: int = 0
    bytes_out: int = 0


class Body:
    """The client's request body, and how it goes on."""

    def __init__(self, request: web.BaseRequest, limits: Limits) -> None:
        self._request = request
        self._limits = limits
        chunked = "Transfer-Encoding" in request.headers
        declared = request.headers.get("Content-Length")
        self.length = None if chunked else int(declared or 0)
        self.empty = not chunked and not self.length
        self._expects = request.headers.get("Expect", "").lower() == "100-continue"

    def framing(self) -> tuple[bytes, bytes]:
        """Return the header field under which the body goes on."""
        if self.length is None:
            return b"Transfer-Encoding", b"chunked"
        return b"Content-Length", b"%d" % self.length

    def invite(self) -> None:
        """Tell a client that waits for it to send the body."""
        if self._expects:
            self._expects = False
            if self._request.transport is not None:
                self._request.transport.write(CONTINUE)

    def at_hand(self) -> bytes | None:
        """Return the whole body when it came with the head, None when it must be streamed."""
        if self.empty:
            return b""
        content = self._request.content
        return content.read_nowait() if content.is_eof() else None

    async def read(self) -> bytes:
        """Return the next bytes as they come; nothing at the end. Raises ClientSilent or ClientGone."""
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                return await self._request.content.readany()
        except TimeoutError as error:
            raise ClientSilent from error
        except (ConnectionError, web.RequestPayloadError) as error:
            raise ClientGone from error

    async def whole(self, limit: int, seconds: float) -> bytes | None:
        """Return the whole body, or None when it is longer than the limit.

        Raises ClientSilent when it does not come in time, or ClientGone.
        """
        if self.empty:
            return b""
        if self.length is not None and self.length > limit:
            return None
        self.invite()
        content = self._request.content
        if content.is_eof():
            # It came together with the head, as small messages do.
            data = content.read_nowait()
            return data if len(data) <= limit else None
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(seconds):
                while piece := await content.readany():
                    size += len(piece)
                    if size > limit:
                        return None
                    pieces.append(piece)
        except TimeoutError as error:
            raise ClientSilent from error
        except (ConnectionError, web.RequestPayloadError) as error:
            raise ClientGone from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Exchange:
    """Sends one request on a connection and brings its answer to the client."""

    def __init__(
        self, request: web.BaseRequest, connection: upstream.Connection, limits: Limits, stream: Stream | None
    ) -> None:
        self._request = request
        self._connection = connection
        self._limits = limits
        self.outcome = Outcome(Reply(request))
        if stream is not None:
            stream.on_cut = self._cut
            stream.check()

    def _cut(self, error: Exception) -> None:
        self._connection.fail(error)
        if self.outcome.reply.started:
            self.outcome.reply.abort()

    def send(
        self,
        head: bytes,
        body: Body,
        data: bytes | None,
        before_sending: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> asyncio.Task[None] | None:
        """Send the request. `data` is the whole body; with None it is streamed by the task that is returned.

        `before_sending` sees every streamed piece before it leaves.
        """
        if data is not None:
            self._connection.write(head + data)
            self.outcome.bytes_in = len(data)
            self.outcome.sent_whole = True
            return None
        self._connection.write(head)
        self._connection.sending = True
        body.invite()
        return asyncio.create_task(self._pump(body, before_sending))

    async def _pump(self, body: Body, before_sending: Callable[[bytes], Awaitable[None]] | None) -> None:
        connection = self._connection
        try:
            while data := await body.read():
                if before_sending is not None:
                    await before_sending(data)
                self.outcome.bytes_in += len(data)
                connection.write(data if body.length is not None else b"%x\r\n%b\r\n" % (len(data), data))
                await connection.drain(self._limits.idle_seconds)
            if body.length is None:
                connection.write(b"0\r\n\r\n")
            self.outcome.sent_whole = True
        except upstream.UpstreamError:
            # The other side may have answered before it read everything; the reader will see.
            return
        except Exception as error:  # noqa: BLE001  (handed to the reader, which ends the exchange with it)
            connection.fail(error)
        finally:
            connection.sending = False

    async def receive(
        self,
        pump: asyncio.Task[None] | None,
        *,
        transform: Callable[[AnswerHead], Fields],
        observe: Callable[[bytes], None] | None = None,
    ) -> Outcome:
        """Relay the answer. Raises what went wrong before anything reached the client.

        Later faults cut the client's connection, because the answer can't be completed any more; the outcome
        then is not `complete`.
        """
        method = self._request.method
        outcome = self.outcome
        try:
            head = await self._connection.read_head(method, seconds=self._limits.idle_seconds)
            outcome.status = head.status
            fields = transform(head)
            await self._relay_body(head, fields, observe)
        except asyncio.CancelledError:
            self._connection.fail(ClientGone())
            raise
        except Exception as error:
            self._connection.fail(error)
            if not outcome.reply.started:
                raise
            outcome.reply.abort()
            if not isinstance(error, EXPECTED):
                raise
        finally:
            outcome.bytes_out = outcome.reply.sent
            if pump is not None and not pump.done():
                pump.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await pump
        if not outcome.sent_whole:
            outcome.reply.close_after()
        return outcome

    async def _relay_body(self, head: AnswerHead, fields: Fields, observe: Callable[[bytes], None] | None) -> None:
        outcome, connection = self.outcome, self._connection
        reply = outcome.reply
        reply.start(head.status, fields, length=head.declared)
        if not connection.body_complete and not connection.has_received:
            reply.flush()

        def pass_on(pieces: list[bytes]) -> bool:
            if observe is not None:
                for piece in pieces:
                    observe(piece)
            reply.send(pieces, last=connection.body_complete)
            return reply.has_room

        await connection.pour(pass_on, reply.wait_for_room, self._limits.idle_seconds)
        reply.finish()
        outcome.complete = True


EXPECTED = (
    upstream.UpstreamError,
    http1.BadAnswer,
    ClientGone,
    ClientSilent,
    SandboxGone,
    AccessRevoked,
)
