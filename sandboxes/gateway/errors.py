"""The gateway's own answers when something is refused or away, word for word as E2B clients read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandboxes.gateway import pages
from sandboxes.gateway.cors import OPEN_TO_ALL
from sandboxes.gateway.reply import Reply, whole

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxes.gateway.http1 import Fields

NOT_FOUND = "The sandbox was not found"
PORT_CLOSED = "The sandbox is running but port is not open"
UNAUTHORIZED = "unauthorized access, please provide a valid access token or method signing if supported"
TOKEN_MISMATCH = "access token present in header but does not match"  # noqa: S105  (a message)
SIGNATURE_MISSING = "missing signature query parameter"
SIGNATURE_INVALID = "invalid signature"
SIGNATURE_EXPIRED = "signature is already expired"
TOO_MANY_CONNECTIONS = "The sandbox has too many open connections"
AUDIT_AWAY = "The act can't be recorded at the moment, so it was not done. Try again."
AUDIT_FULL = "The sandbox's audit record is full for the moment, so the act was not done. Try again."
STARTING = "The gateway does not know the running sandboxes yet. Try again."
TOO_MANY_SIGNATURES = "Too many file addresses were tried. Try again in a second."
BODY_SILENT = "The request's body did not come in time"
BAD_ANSWER = "The sandbox is running but its answer is not valid HTTP"
GATEWAY_FAILED = "The gateway failed"
WEB_AWAY = "The control plane is not available at the moment"
TLS_FAILED = "The sandbox is running but its port does not speak TLS"
LEADS_AWAY = "The sandbox is running but its answer leads to another host"
_SECURED = "Sandbox is secured with traffic access token."
TRAFFIC_TOKEN_MISSING = f"{_SECURED} Token header 'e2b-traffic-access-token' is missing"
TRAFFIC_TOKEN_INVALID = f"{_SECURED} Provided token in header 'e2b-traffic-access-token' is invalid"
RESUME_REFUSED = "This sandbox can't be resumed with the credentials provided. Check your access token and try again."
RESUME_LIMITED = "The sandbox can't be resumed now: too many sandboxes are running. Try again later."
TRANSITIONING = "The sandbox is still transitioning. Try again in a moment."

_JSON: Fields = [(b"Content-Type", b"application/json; charset=utf-8")]


def json_error(
    request: web.BaseRequest,
    status: int,
    message: str,
    *,
    retry_after: int | None = None,
    **more: str | int,
) -> Reply:
    """Answer with `{"code", "message"}` and more keys."""
    body = {**more, "message": message, "code": status}
    fields = [*_JSON, *OPEN_TO_ALL]
    if retry_after is not None:
        fields.append((b"Retry-After", b"%d" % retry_after))
    return whole(request, status, fields, json.dumps(body).encode())


def rpc_error(request: web.BaseRequest, status: int, code: str, message: str) -> Reply:
    """Answer a unary call with Connect's JSON error."""
    body = json.dumps({"code": code, "message": message}).encode()
    return whole(request, status, [(b"Content-Type", b"application/json"), *OPEN_TO_ALL], body)


def rpc_stream_error(request: web.BaseRequest, code: str, message: str) -> Reply:
    """Answer a streaming call with one end-stream envelope that carries the error."""
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    fields = [(b"Content-Type", b"application/connect+json"), *OPEN_TO_ALL]
    return whole(request, 200, fields, b"\x02" + len(body).to_bytes(4, "big") + body)


def plain_error(request: web.BaseRequest, status: int, message: str, *, last: bool = False) -> Reply:
    """Answer with plain text, for requests that lead nowhere; `last` ends the connection after it."""
    fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"X-Content-Type-Options", b"nosniff"),
        *OPEN_TO_ALL,
    ]
    return whole(request, status, fields, message.encode() + b"\n", last=last)


def sandbox_error(
    request: web.BaseRequest,
    sandbox_id: str,
    status: int,
    message: str,
    *,
    retry_after: int | None = None,
    port: int | None = None,
    limit: int | None = None,
) -> Reply:
    """Answer for a sandbox: JSON, or a page when a person's browser navigates."""
    if pages.is_navigation(request):
        fields = list(pages.FIELDS)
        if retry_after is not None:
            fields.append((b"Retry-After", b"%d" % retry_after))
        return whole(request, status, fields, pages.render(status, message, sandbox_id, port))
    numbers = {"port": port, "connectionLimit": limit}
    more = {name: number for name, number in numbers.items() if number is not None}
    return json_error(request, status, message, retry_after=retry_after, sandboxId=sandbox_id, **more)


def not_found(request: web.BaseRequest, sandbox_id: str) -> Reply:
    """Answer for a sandbox that is unknown, killed, or paused and not to be resumed by a call."""
    return sandbox_error(request, sandbox_id, 502, NOT_FOUND)


def resume_refused(request: web.BaseRequest, sandbox_id: str) -> Reply:
    """Answer a caller who has no right to wake a paused sandbox."""
    return sandbox_error(request, sandbox_id, 403, RESUME_REFUSED)


def port_closed(request: web.BaseRequest, sandbox_id: str, port: int) -> Reply:
    """Answer for a port on which nothing listens, or that is not for the outside."""
    return sandbox_error(request, sandbox_id, 502, PORT_CLOSED, port=port)


def too_many_connections(request: web.BaseRequest, sandbox_id: str, limit: int) -> Reply:
    """Answer when a sandbox has as many open requests as it may have."""
    return sandbox_error(request, sandbox_id, 429, TOO_MANY_CONNECTIONS, limit=limit)


def closed(request: web.BaseRequest) -> Reply:
    """Answer a client that is gone: not at all."""
    reply = Reply(request)
    reply.abort()
    return reply


def internal_route(request: web.BaseRequest, path: str) -> Reply:
    """Answer for the agent's control routes and for paths that it does not have."""
    return json_error(request, 404, "The requested path was not found", path=path[:256])
