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
    Work = Callable[[str, int, Mapping[str, object]], Mapping[str, object]]

logger = structlog.get_logger("gatehouse.internal")

MAX_BODY_BYTES = 4096
MAX_THREADS = 8
MAX_HOST = 255
_PATH = re.compile(r"/internal/v1/sandboxes/(?P<id>[a-z0-9]{1,64})/(?P<what>[a-z]+)")
_SCOPES = frozenset({"platform:write"})

GATEWAY = Actor(kind="system", id="gateway", name="Gateway", tenant_id=None, scopes=_SCOPES)
EGRESS = Actor(kind="system", id="egress", name="Egress", tenant_id=None, scopes=_SCOPES)


class InternalApp:
    """The internal API. Below `/internal/v1/sandboxes/{id}` each of our processes has what it needs and no more.

    The gateway: `POST resume` with `{"generation": n}`. Egress: `POST credentials` with `generation`, `host`, `method`,
    `path` and `rule_host`.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="internal")

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request with JSON, whatever happens."""
        try:
            (work, sandbox_id), body = _route(scope), await _read(receive)
            loop = asyncio.get_running_loop()
            _begin_trace(scope)
            # The thread that does the work is to know whose request it is.
            context = contextvars.copy_context()
            answer = await loop.run_in_executor(self._threads, context.run, _run, work, sandbox_id, body)
        except Exception as problem:
            error = translate(problem)
            if error is None:
                logger.error("unhandled_exception", exc_info=problem)
                error = GatehouseError()
            await _answer(send, error.status, error.as_body(), error.headers())
        else:
            await _answer(send, 200, answer, {})


def _begin_trace(scope: Mapping[str, Any]) -> None:
    fields = {bytes(name).lower(): bytes(value).decode("latin-1") for name, value in scope["headers"]}
    tracing.begin(fields.get(b"x-request-id", ""), fields.get(b"traceparent", ""))


def _route(scope: Mapping[str, Any]) -> tuple[Work, str]:
    match = _PATH.fullmatch(scope["path"])
    if match is None or match["what"] not in _ROUTES:
        raise NotFound("There is nothing at this path.")
    if scope["method"] != "POST":
        raise MethodNotAllowed
    caller, work = _ROUTES[match["what"]]
    if not listeners.is_from(scope, caller):
        raise Forbidden("Another process of this host asks for that.")
    return work, match["id"]


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge
        if not message.get("more_body"):
            return bytes(body)


def _run(work: Work, sandbox_id: str, body: bytes) -> Mapping[str, object]:
    data = parse_json(body)
    if not isinstance(data, dict):
        raise InvalidInput("The body must be a JSON object.")
    generation = data.get("generation")
    if isinstance(generation, bool) or not isinstance(generation, int) or not 1 <= generation < 2**31:
        raise InvalidInput("generation must be a whole number of 1 or more.", field="generation")
    close_old_connections()
    try:
        return work(sandbox_id, generation, data)
    finally:
        close_old_connections()


def _resume(sandbox_id: str, generation: int, _data: Mapping[str, object]) -> Mapping[str, object]:
    from sandboxes.actions import resume_for_traffic

    resume_for_traffic(actor=GATEWAY, sandbox_id=sandbox_id, generation=generation)
    return {}


def _credentials(sandbox_id: str, generation: int, data: Mapping[str, object]) -> Mapping[str, object]:
    from sandboxes.credentials import Request, credentials

    rule_host = None if data.get("rule_host") is None else _text(data, "rule_host", MAX_HOST)
    request = Request(
        host=_text(data, "host", MAX_HOST),
        method=_text(data, "method", 32),
        path=_text(data, "path", MAX_BODY_BYTES),
        rule_host=rule_host,
    )
    return credentials(actor=EGRESS, sandbox_id=sandbox_id, generation=generation, request=request)


def _text(data: Mapping[str, object], field: str, longest: int) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise InvalidInput(f"{field} must be a text of 1 to {longest} characters.", field=field)
    return value


_ROUTES: Mapping[str, tuple[str, Work]] = {
    "resume": (listeners.GATEWAY_USER, _resume),
    "credentials": (listeners.EGRESS_USER, _credentials),
}


async def _answer(send: Send, status: int, body: Mapping[str, object], headers: Mapping[str, str]) -> None:
    content = json.dumps(body).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    fields += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": content})
