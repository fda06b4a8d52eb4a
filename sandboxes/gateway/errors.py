"""The gateway's own answers when something is refused or away, word for word as E2B clients read them."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

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

_JSON: Fields = [(b"Content-Type", b"application/json; charset=utf-8")]
_BROWSER_MARKS = (b"mozilla/", b"opera/")
_SCRIPTED_FETCHES = {b"cors", b"no-cors", b"same-origin", b"websocket"}


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


def plain_error(request: web.BaseRequest, status: int, message: str) -> Reply:
    """Answer with plain text, for requests that lead nowhere."""
    fields = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"X-Content-Type-Options", b"nosniff")]
    return whole(request, status, fields, message.encode() + b"\n")


def sandbox_error(request: web.BaseRequest, sandbox_id: str, status: int, message: str, **more: str | int) -> Reply:
    """Answer for a sandbox: JSON, or a page when a person's browser navigates."""
    if is_navigation(request):
        return _page(request, status, message, sandbox_id)
    return json_error(request, status, message, retry_after=None, sandboxId=sandbox_id, **more)


def not_found(request: web.BaseRequest, sandbox_id: str) -> Reply:
    """Answer for a sandbox that is unknown, killed or paused."""
    return sandbox_error(request, sandbox_id, 502, NOT_FOUND)


def port_closed(request: web.BaseRequest, sandbox_id: str, port: int) -> Reply:
    """Answer for a port on which nothing listens, or that is not for the outside."""
    return sandbox_error(request, sandbox_id, 502, PORT_CLOSED, port=port)


def too_many_connections(request: web.BaseRequest, sandbox_id: str, limit: int) -> Reply:
    """Answer when a sandbox has as many open requests as it may have."""
    return sandbox_error(request, sandbox_id, 429, TOO_MANY_CONNECTIONS, connectionLimit=limit)


def closed(request: web.BaseRequest) -> Reply:
    """Answer a client that is gone: not at all."""
    reply = Reply(request)
    reply.abort()
    return reply


def internal_route(request: web.BaseRequest, path: str) -> Reply:
    """Answer for the agent's control routes and for paths that it does not have."""
    return json_error(request, 404, "The requested path was not found", path=path[:256])


def is_navigation(request: web.BaseRequest) -> bool:
    """Say whether a person's browser asks for a page, rather than a program for data."""
    agent = accept = mode = b""
    for name, value in request.raw_headers:
        lowered = name.lower()
        if lowered == b"user-agent":
            agent = value.lower()
        elif lowered == b"accept":
            accept = value.lower()
        elif lowered == b"sec-fetch-mode":
            mode = value.lower()
    return (
        any(mark in agent for mark in _BROWSER_MARKS)
        and mode not in _SCRIPTED_FETCHES
        and b"application/json" not in accept
    )


def _page(request: web.BaseRequest, status: int, message: str, sandbox_id: str) -> Reply:
    title = html.escape(message)
    body = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1><p>Sandbox <code>{html.escape(sandbox_id)}</code></p></body></html>\n"
    )
    fields = [
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Security-Policy", b"default-src 'none'; sandbox"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Cache-Control", b"no-store"),
    ]
    return whole(request, status, fields, body.encode())
