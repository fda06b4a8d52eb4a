"""The public listener: aiohttp's low-level server with time limits on heads and bounds on everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sandboxes.gateway import errors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from sandboxes.gateway.settings import Limits

_WRITE_HIGH_WATER = 256 * 1024


class BoundedHandler(RequestHandler):
    """One client connection. A head that was begun must be complete in time; errors are answered in JSON."""

    __slots__ = ("_head_seconds", "_head_timer")

    def __init__(self, server: web.Server, *, head_seconds: float, **options: Any) -> None:
        super().__init__(server, **options)
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection and start the clock for its first head."""
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and watch how long an unfinished head takes."""
        super().data_received(data)
        if self._messages or self._request_in_progress:
            self._stop_clock()
        elif self._head_timer is None and self._waiter is not None and not self._upgraded:
            self._start_clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self._too_late)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_late(self) -> None:
        self._head_timer = None
        if not self._request_in_progress and not self._messages:
            self.force_close()

    @property
    def idle(self) -> bool:
        """Whether no request is being served or waiting."""
        return not self._request_in_progress and not self._messages

    def retire(self) -> None:
        """Take no more requests: close now when idle, else after the request that is being served."""
        if self.idle:
            self.force_close()
        else:
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that can't be parsed, or a fault of our own, without echoing anything of it."""
        if status >= 500:
            self.logger.error("request_failed", exc_info=exc)
        text = errors.GATEWAY_FAILED if status >= 500 else "The request is not valid HTTP"
        reply = errors.json_error(request, status, text)
        reply.close_after()
        return reply


class BoundedServer(web.Server):
    """Makes a BoundedHandler for every connection, and turns connections away above the limit."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: Limits) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._limits = limits
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": limits.keepalive_seconds,
            "lingering_time": 2.0,
            "max_line_size": limits.header_line,
            "max_field_size": limits.header_line,
            "max_headers": limits.header_count,
            "read_bufsize": 256 * 1024,
        }

    def __call__(self) -> RequestHandler:
        """Return the protocol of one new connection."""
        return BoundedHandler(self, loop=self._loop, head_seconds=self._limits.header_seconds, **self._options)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Note a connection; above the limit the oldest idle one makes room, or else the new one goes."""
        super().connection_made(handler, transport)
        if len(self._connections) > self._limits.client_connections:
            idle = (one for one in self._connections if isinstance(one, BoundedHandler) and one.idle)
            next(idle, handler).force_close()

    def retire_all(self) -> None:
        """Let every connection end with what it is doing."""
        for handler in list(self._connections):
            if isinstance(handler, BoundedHandler):
                handler.retire()

    def abort_all(self) -> None:
        """Cut every connection that is still open."""
        for transport in list(self._connections.values()):
            transport.abort()
