"""What the processes of this host may ask of web: a listener of its own, and callers known by their uid.

No public route accepts these callers, and this listener answers nobody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import structlog
from django.db import close_old_connections

from corekit import tracing
from corekit.actor import Actor
from corekit.errors import Forbidden, GatehouseError, InvalidInput, MethodNotAllowed, NotFound, TooLarge
from gatehouse import listeners
from gatehouse.api.exceptions import translate
from gatehouse.api.parsers import parse_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[Mapping[str, Any]], Awaitable[None]]

logger = structlog.get_logger("gatehouse.internal")

MAX_BODY_BYTES = 4096
MAX_THREADS = 8
_RESUME = re.compile(r"/internal/v1/sandboxes/(?P<id>[a-z0-9]{1,64})/resume")

GATEWAY = Actor(kind="system", id="gateway", name="Gateway", tenant_id=None, scopes=frozenset({"platform:write"}))


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
    if not listeners.is_from(scope, listeners.GATEWAY_USER):
        raise Forbidden("Another process of this host asks for that.")
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
