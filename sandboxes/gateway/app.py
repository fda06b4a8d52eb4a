"""The gateway put together: one handler for every request, and the parts that live as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Self, cast

from audit.risk.pool import Assessor
from sandboxes.gateway import authentication, context, cors, errors, executions, framing, routing, web
from sandboxes.gateway.edge import RouteFeed
from sandboxes.gateway.operations import AGENT_PORT
from sandboxes.gateway.ports import PortCall
from sandboxes.gateway.relay import AgentCall
from sandboxes.gateway.resume import Resumer
from sandboxes.gateway.routes import RouteTable
from sandboxes.gateway.server import BoundedServer
from sandboxes.gateway.tap import Tap
from sandboxes.gateway.upstream import Pool

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from sandboxes.gateway.reply import Reply
    from sandboxes.gateway.routing import ToSandbox
    from sandboxes.gateway.settings import GatewaySettings

_TICK_SECONDS = 0.5
_BACKLOG = 1024
# Shorter than the 5 s after which an ASGI server closes a connection that waits.
_WEB_IDLE_SECONDS = 4.0


class Gateway:
    """A running gateway: `async with create_app(settings) as gateway: await gateway.listen(sock)`."""

    def __init__(self, settings: GatewaySettings, assessor: Assessor | None = None) -> None:
        limits = settings.limits
        table = RouteTable(limits)
        self._own_assessor = Assessor() if assessor is None else None
        self.services = context.Services(
            settings=settings,
            table=table,
            tap=Tap(settings.tap_socket, limits),
            assessor=assessor or cast("Assessor", self._own_assessor),
            signatures=authentication.Signatures(table, limits),
            web=Pool(settings.web_socket, connect_seconds=limits.connect_seconds, idle_seconds=_WEB_IDLE_SECONDS),
            resumer=Resumer(settings.internal_socket, limits),
        )
        self._feed = RouteFeed(table, settings.edge_socket)
        self._tasks: list[asyncio.Task[None]] = []
        self._server: BoundedServer | None = None
        self._listeners: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        """Start following the node."""
        self._server = BoundedServer(self.handle, self.services.limits)
        self._tasks = [
            asyncio.create_task(self._feed.run()),
            asyncio.create_task(self.services.tap.run()),
            asyncio.create_task(self._tick()),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop accepting, let requests end for a moment, cut the rest, hand over the last results."""
        limits = self.services.limits
        for listener in self._listeners:
            listener.close()
        server = self._server
        if server is not None:
            server.retire_all()
            deadline = asyncio.get_running_loop().time() + limits.drain_seconds
            while server.connections and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.02)
            server.abort_all()
            await asyncio.sleep(0)
            await server.shutdown(0.5)
        await self.services.tap.settle(1.0)
        executions.flush()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for route in self.services.table:
            route.close()
        self.services.web.close()
        self.services.resumer.close()
        if self._own_assessor is not None:
            self._own_assessor.close()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.connections) if self._server is not None else 0

    async def listen(self, sock: socket.socket) -> None:
        """Accept clients on a bound TCP socket."""
        if self._server is None:
            raise RuntimeError("the gateway was not started")
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_server(self._server, sock=sock, backlog=_BACKLOG))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = asyncio.get_running_loop().time()
            self.services.table.tick()
            self.services.web.prune(now)

    async def handle(self, request: BaseRequest) -> Reply:
        """Serve one request, wherever it goes."""
        if (fault := framing.fault(request)) is not None:
            return errors.plain_error(request, 400, fault, last=True)
        going = routing.destination(
            method=request.method,
            target=request.raw_path,
            headers=request.raw_headers,
            domain=self.services.settings.domain,
        )
        match going:
            case routing.ToControlPlane():
                return await web.handle(self.services, request)
            case routing.ToSandbox():
                return await self._to_sandbox(request, going)
            case routing.ToSignedFile():
                return await self._to_signed_file(request)
            case routing.Refused():
                return errors.plain_error(request, 400, going.reason)

    async def _to_sandbox(self, request: BaseRequest, going: ToSandbox) -> Reply:
        if going.port == AGENT_PORT and cors.is_preflight(request):
            # A browser must be allowed to ask in order to read that the sandbox is gone.
            return cors.preflight(request)
        table = self.services.table
        route = await table.find(going.sandbox_id)
        if route is None and not table.synced:
            return errors.sandbox_error(request, going.sandbox_id, 503, errors.STARTING, retry_after=1)
        if route is None or route.asleep:
            return errors.not_found(request, going.sandbox_id)
        if going.port == AGENT_PORT:
            return await AgentCall(self.services, request, route, shared_host=going.shared_host).handle()
        return await PortCall(self.services, request, route, going.port, shared_host=going.shared_host).handle()

    async def _to_signed_file(self, request: BaseRequest) -> Reply:
        if cors.is_preflight(request):
            return cors.preflight(request)
        operation = "write" if request.method == "POST" else "read"
        try:
            query = authentication.read_file_query(request.raw_path.partition("?")[2])
            route, key_id = self.services.signatures.anywhere(query, operation)
        except authentication.BadQuery as error:
            return errors.json_error(request, 400, str(error))
        except authentication.Denied as denial:
            return errors.json_error(request, 401, str(denial))
        except authentication.ScanLimited:
            return errors.json_error(request, 429, errors.TOO_MANY_SIGNATURES, retry_after=1)
        if route.asleep:
            return errors.not_found(request, route.id)
        return await AgentCall(self.services, request, route, shared_host=True).handle(signer=key_id)


def create_app(settings: GatewaySettings, assessor: Assessor | None = None) -> Gateway:
    """Return a gateway that is not running yet. Without an assessor it starts one of its own, and ends it."""
    return Gateway(settings, assessor)


def bound_socket(settings: GatewaySettings) -> socket.socket:
    """Return the public socket: the descriptor that was handed over, or one bound here. Raises OSError."""
    if settings.listen_fd is not None:
        sock = socket.socket(fileno=settings.listen_fd)
    else:
        family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.bind, settings.port))
    sock.setblocking(False)  # noqa: FBT003  (the standard library's own signature)
    return sock
