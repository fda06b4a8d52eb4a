"""Upgraded connections: after a 101 the bytes pass both ways as they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from sandboxes.gateway import http1, upstream
from sandboxes.gateway.reply import ClientGone, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web
    from aiohttp.http import WebSocketReader

    from sandboxes.gateway.http1 import AnswerHead, Fields
    from sandboxes.gateway.routes import Stream
    from sandboxes.gateway.settings import Limits

_FROM_HANDSHAKE = frozenset({b"sec-websocket-accept", b"sec-websocket-protocol", b"sec-websocket-extensions"})


def is_upgrade(request: web.BaseRequest) -> bool:
    """Say whether the client asks to switch to WebSocket."""
    headers = request.headers
    if request.method != "GET" or headers.get("Upgrade", "").lower() != "websocket":
        return False
    return "upgrade" in {part.strip() for part in headers.get("Connection", "").lower().split(",")}


def handshake_fields() -> Fields:
    """Return the hop-by-hop fields that ask the other side to switch."""
    return [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


class _ToUpstream:
    """Stands where aiohttp expects a WebSocket parser and passes the client's bytes on unread."""

    def __init__(self, request: web.BaseRequest, connection: upstream.Connection, idle_seconds: float) -> None:
        self._transport = request.transport
        self._idle_seconds = idle_seconds
        self._connection = connection
        self._resume: asyncio.Task[None] | None = None

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass bytes on; stop reading from the client while the other side is slow."""
        self._connection.write(data)
        if self._connection.writing_paused and self._resume is None and self._transport is not None:
            self._transport.pause_reading()
            self._resume = asyncio.get_running_loop().create_task(self._resume_later())
        return False, b""

    async def _resume_later(self) -> None:
        try:
            await self._connection.drain(self._idle_seconds)
        except Exception:  # noqa: BLE001  (the reader of the other direction reports it)
            return
        self._resume = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def feed_eof(self) -> None:
        """The client is gone."""
        self._connection.close()


async def relay_upgrade(
    request: web.BaseRequest,
    connection: upstream.Connection,
    head: bytes,
    limits: Limits,
    stream: Stream | None,
    otherwise: Callable[[AnswerHead], Fields],
) -> Reply:
    """Send an upgrade request and, when it is accepted, pass bytes until either side ends.

    A refusal is relayed like any other answer, with the fields that `otherwise` chooses. Raises what went
    wrong before anything reached the client.
    """
    reply = Reply(request)

    def cut(error: Exception) -> None:
        connection.fail(error)
        if reply.started:
            reply.abort()

    if stream is not None:
        stream.on_cut = cut
        stream.check()
    connection.write(head)
    answer = await connection.read_head("GET", seconds=limits.idle_seconds, upgrade=True)
    reply.close_after()
    if answer.status != 101:
        await _relay_refusal(reply, connection, answer, otherwise(answer), limits)
        return reply
    if (answer.get(b"upgrade") or b"").lower() != b"websocket":
        raise http1.BadAnswer("the answer switches to something that was not asked for")
    fields = [field for field in answer.fields if field[0].lower() in _FROM_HANDSHAKE]
    reply.switch([*handshake_fields(), *fields])
    request.protocol.set_parser(cast("WebSocketReader", _ToUpstream(request, connection, limits.idle_seconds)))
    try:
        while data := await connection.read_raw(limits.upgraded_idle_seconds):
            reply.send([data])
            await reply.wait_for_room(limits.idle_seconds)
    except (upstream.UpstreamError, ClientGone):
        reply.abort()
    finally:
        connection.close()
    return reply


async def _relay_refusal(
    reply: Reply, connection: upstream.Connection, answer: AnswerHead, fields: Fields, limits: Limits
) -> None:
    reply.start(answer.status, fields, length=answer.declared)
    try:
        while pieces := await connection.read_body(limits.idle_seconds):
            reply.send(pieces)
            await reply.wait_for_room(limits.idle_seconds)
        reply.finish()
    except (upstream.UpstreamError, http1.BadAnswer, ClientGone):
        reply.abort()
    finally:
        connection.close()
