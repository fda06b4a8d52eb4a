"""Everything that is no sandbox traffic: passed on to web over its unix socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from corekit.logs import logger
from sandboxes.gateway import context, cors, errors, http1, upgrade, upstream
from sandboxes.gateway.exchange import Body, ClientSilent, Exchange
from sandboxes.gateway.reply import ClientGone

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxes.gateway.context import Services
    from sandboxes.gateway.http1 import AnswerHead, Fields
    from sandboxes.gateway.reply import Reply

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What web trusts comes from the gateway alone. Underscores count as dashes: web can't tell them apart.
_IDENTITY = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-prefix",
        b"x-real-ip",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
        b"remote-user",
    }
)


async def handle(services: Services, request: web.BaseRequest) -> Reply:
    """Pass one request on and its answer back."""
    if cors.is_preflight(request) and cors.asks_for_key(request.raw_headers):
        return cors.preflight(request)
    body = Body(request, services.limits)
    try:
        if upgrade.is_upgrade(request):
            return await _upgrade(services, request)
        data = await _small_body(services, body)
        for attempt in (1, 2):
            reply = await _attempt(services, request, body, data, last=attempt == 2)
            if reply is not None:
                return reply
    except ClientSilent:
        return errors.json_error(request, 408, errors.BODY_SILENT)
    except ClientGone:
        return errors.closed(request)
    except (upstream.UpstreamError, http1.BadAnswer) as error:
        logger.warning("web_away", reason=str(error))
    return errors.json_error(request, 503, errors.WEB_AWAY, retry_after=1, error_code="unavailable")


async def _small_body(services: Services, body: Body) -> bytes | None:
    limits = services.limits
    if body.length is None or body.length > limits.small_body:
        return None
    return await body.whole(limits.small_body, limits.idle_seconds)


async def _attempt(
    services: Services, request: web.BaseRequest, body: Body, data: bytes | None, *, last: bool
) -> Reply | None:
    """Try one connection. None: web closed a kept one before it saw the request, and asking again is safe."""
    connection = await (services.web.fresh() if last else services.web.acquire())
    exchange = Exchange(request, connection, services.limits, None)
    try:
        pump = exchange.send(_head(request, _framing(request, body, data)), body, data)
        outcome = await exchange.receive(pump, transform=lambda head: _answer_fields(request, head))
    except upstream.Disconnected as error:
        if last or not (error.early and connection.reused and request.method in _SAFE_METHODS and not data):
            raise
        return None
    finally:
        services.web.release(connection, sent_whole=exchange.outcome.sent_whole)
    return outcome.reply


async def _upgrade(services: Services, request: web.BaseRequest) -> Reply:
    connection = await services.web.fresh()
    try:
        return await upgrade.relay_upgrade(
            request,
            connection,
            _head(request, None),
            services.limits,
            None,
            lambda head: _answer_fields(request, head),
        )
    except asyncio.CancelledError:
        connection.close()
        raise


def _framing(request: web.BaseRequest, body: Body, data: bytes | None) -> tuple[bytes, bytes] | None:
    if data is None:
        return body.framing()
    if data or request.method not in _SAFE_METHODS:
        return b"Content-Length", b"%d" % len(data)
    return None


def _head(request: web.BaseRequest, framing: tuple[bytes, bytes] | None) -> bytes:
    fields: Fields = [
        field
        for field in http1.end_to_end(request.raw_headers, frozenset())
        if field[0].lower().replace(b"_", b"-") not in _IDENTITY
    ]
    fields.append((b"X-Forwarded-For", context.origin(request).encode("ascii")))
    fields += [(name.encode(), value.encode()) for name, value in context.trace(request).headers().items()]
    if upgrade.is_upgrade(request):
        fields += upgrade.handshake_fields()
    if framing is not None:
        fields.append(framing)
    return http1.render_head(http1.request_line(request.method, request.raw_path), fields)


def _answer_fields(request: web.BaseRequest, head: AnswerHead) -> Fields:
    fields = http1.end_to_end(head.fields, frozenset())
    if cors.is_keyed_cross_origin(request) and head.get(b"access-control-allow-origin") is None:
        fields += cors.OPEN_TO_ALL
    return fields
