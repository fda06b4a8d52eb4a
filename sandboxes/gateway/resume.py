"""Waking paused sandboxes: web reserves the quota and has the node resume, the feed says when it runs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from corekit.logs import logger
from sandboxes.gateway import http1, upstream

if TYPE_CHECKING:
    from pathlib import Path

    from corekit.tracing import Trace
    from sandboxes.gateway.routes import Route
    from sandboxes.gateway.settings import Limits

_MAX_BODY = 64 * 1024
# A refusal counts for everybody who asks within this time, so that strangers can't make web repeat it.
_REFUSED_SECONDS = 1.0
_STATUSES = frozenset({403, 404, 409, 429})


class NotResumed(Exception):
    """A paused sandbox stays paused. `status` is web's: 403, 404, 409 or 429, and 503 for everything else."""

    def __init__(self, status: int, message: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Resumer:
    """Asks web to resume sandboxes: one question for each sandbox at a time, whoever waits for its answer."""

    def __init__(self, socket: Path, limits: Limits) -> None:
        self._socket = socket
        self._seconds = limits.resume_seconds
        self._asked: dict[str, asyncio.Task[NotResumed | None]] = {}

    async def wake(self, route: Route, trace: Trace) -> None:
        """Return once the sandbox runs. The caller's right must have been checked. Raises NotResumed."""
        if route.running:
            return
        task = self._asked.get(route.id)
        if task is None:
            task = self._asked[route.id] = asyncio.create_task(self._resume(route, trace))
            task.add_done_callback(lambda _: self._forget(route.id))
        failure = await asyncio.shield(task)
        if failure is not None:
            raise NotResumed(failure.status, str(failure), failure.retry_after)

    def _forget(self, sandbox_id: str) -> None:
        task = self._asked[sandbox_id]
        if task.cancelled() or task.exception() is not None or task.result() is None:
            del self._asked[sandbox_id]
        else:
            asyncio.get_running_loop().call_later(_REFUSED_SECONDS, self._asked.pop, sandbox_id, None)

    def close(self) -> None:
        """Stop waiting for answers."""
        for task in self._asked.values():
            task.cancel()

    async def _resume(self, route: Route, trace: Trace) -> NotResumed | None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._ask(route, trace)
                # Web may know it earlier than the feed.
                running = await route.until_running(self._seconds)
        except NotResumed as failure:
            return failure
        except TimeoutError:
            running = route.running
        except (upstream.UpstreamError, http1.BadAnswer) as error:
            logger.warning("resume_unanswered", sandbox_id=route.id, reason=str(error))
            return NotResumed(503, retry_after=1)
        return None if running else NotResumed(409)

    async def _ask(self, route: Route, trace: Trace) -> None:
        connection = await upstream.connect(self._socket, seconds=min(self._seconds, 5.0))
        try:
            connection.begin()
            connection.write(_request(route, trace))
            head = await connection.read_head("POST", seconds=self._seconds)
            body = b""
            while pieces := await connection.read_body(self._seconds):
                body += b"".join(pieces)
                if len(body) > _MAX_BODY:
                    raise http1.BadAnswer("web's answer is too long")
        finally:
            connection.close()
        if head.status != 200:
            raise _failure(head, body)


def _request(route: Route, trace: Trace) -> bytes:
    body = json.dumps({"generation": route.generation}).encode()
    fields: http1.Fields = [
        (b"Host", b"web"),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"close"),
    ]
    fields += [(name.encode(), value.encode()) for name, value in trace.headers().items()]
    target = f"/internal/v1/sandboxes/{route.id}/resume"
    return http1.render_head(http1.request_line("POST", target), fields) + body


def _failure(head: http1.AnswerHead, body: bytes) -> NotResumed:
    try:
        answer = json.loads(body)
        message = str(answer["message"])
    except (ValueError, KeyError, TypeError):
        message = ""
    seconds = head.get(b"retry-after") or b""
    retry_after = int(seconds) if seconds.isdigit() and len(seconds) < 6 else None
    if head.status not in _STATUSES:
        logger.warning("resume_failed", status=head.status, message=message)
        return NotResumed(503, retry_after=retry_after or 1)
    return NotResumed(head.status, message, retry_after)
