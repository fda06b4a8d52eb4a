"""What the processes of this host may ask of web: a listener of its own, and callers known by their uid.

No public route accepts these callers, and this listener answers nobody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import os
import pwd
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from django.conf import settings
from django.db import close_old_connections
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from corekit import tracing
from corekit.actor import Actor
from corekit.errors import GatehouseError, InvalidInput, MethodNotAllowed, NotFound, TooLarge
from gatehouse.api.exceptions import translate
from gatehouse.api.parsers import parse_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[Mapping[str, Any]], Awaitable[None]]

logger = structlog.get_logger("gatehouse.internal")

GATEWAY_USER = "gatehouse-gateway"
MAX_BODY_BYTES = 4096
MAX_THREADS = 8
_RESUME = re.compile(r"/internal/v1/sandboxes/(?P<id>[a-z0-9]{1,64})/resume")
_PEER = struct.Struct("3i")

GATEWAY = Actor(kind="system", id="gateway", name="Gateway", tenant_id=None, scopes=frozenset({"platform:write"}))


@functools.cache
def welcome_uids() -> frozenset[int]:
    """Return who may call: root, the gateway's user, and our own user where processes share one."""
    uids = {0, os.geteuid()}
    try:
        uids.add(pwd.getpwnam(GATEWAY_USER).pw_uid)
    except KeyError:
        logger.info("gateway_user_missing", user=GATEWAY_USER)
    return frozenset(uids)


def is_internal(scope: Mapping[str, Any]) -> bool:
    """Say whether a request came in by the internal listener."""
    path, _ = scope.get("server") or ("", None)
    return bool(path == str(settings.GATEHOUSE.internal_socket))


class PeerCheckedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP, which closes a connection to the internal listener unless its caller's uid is welcome."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look at who connects before anything is read."""
        super().connection_made(transport)
        if is_internal({"server": self.server}) and peer_uid(transport) not in welcome_uids():
            logger.warning("internal_caller_refused", uid=peer_uid(transport))
            transport.abort()


def peer_uid(transport: asyncio.BaseTransport) -> int | None:
    """Return the uid of the process at the other end of a unix socket, as the kernel knows it."""
    connection = transport.get_extra_info("socket")
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    except (OSError, AttributeError):
        return None
    return int(_PEER.unpack(data)[1])


class InternalApp:
    """The internal API: `POST /internal/v1/sandboxes/{id}/resume` with `{"generation": n}`."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="internal")

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request with JSON, whatever happens."""
        try:
            sandbox_id, body = _route(scope), await _read(receive)
            loop = asyncio.get_running_loop()
            _begin_trace(scope)
            # The thread that does the work is to know whose request it is.
            context = contextvars.copy_context()
            await loop.run_in_executor(self._threads, context.run, _resume, sandbox_id, body)
        except Exception as problem:
            error = translate(problem)
            if error is None:
                logger.error("unhandled_exception", exc_info=problem)
                error = GatehouseError()
            await _answer(send, error.status, error.as_body(), error.headers())
        else:
            await _answer(send, 200, {}, {})


def _begin_trace(scope: Mapping[str, Any]) -> None:
    fields = {bytes(name).lower(): bytes(value).decode("latin-1") for name, value in scope["headers"]}
    tracing.begin(fields.get(b"x-request-id", ""), fields.get(b"traceparent", ""))


def _route(scope: Mapping[str, Any]) -> str:
    match = _RESUME.fullmatch(scope["path"])
    if match is None:
        raise NotFound("There is nothing at this path.")
    if scope["method"] != "POST":
        raise MethodNotAllowed
    return match["id"]


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge
        if not message.get("more_body"):
            return bytes(body)


def _resume(sandbox_id: str, body: bytes) -> None:
    from sandboxes.actions import resume_for_traffic

    data = parse_json(body)
    generation = data.get("generation") if isinstance(data, dict) else None
    if isinstance(generation, bool) or not isinstance(generation, int) or not 1 <= generation < 2**31:
        raise InvalidInput("generation must be a whole number of 1 or more.", field="generation")
    close_old_connections()
    try:
        resume_for_traffic(actor=GATEWAY, sandbox_id=sandbox_id, generation=generation)
    finally:
        close_old_connections()


async def _answer(send: Send, status: int, body: Mapping[str, object], headers: Mapping[str, str]) -> None:
    content = json.dumps(body).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    fields += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": content})
