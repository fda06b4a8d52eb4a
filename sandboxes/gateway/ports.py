"""User ports: what tenants serve inside a sandbox, reached only through the guest agent's CONNECT."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxes.gateway import (
    assess,
    authentication,
    codecells,
    context,
    errors,
    failures,
    http1,
    portfields,
    routing,
    tunnels,
    upgrade,
    upstream,
)
from sandboxes.gateway.exchange import Body, Exchange
from sandboxes.gateway.operations import AGENT_PORT
from sandboxes.gateway.reply import ClientGone
from sandboxes.gateway.routes import TooManyStreams

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxes.gateway.context import Services
    from sandboxes.gateway.http1 import AnswerHead, Fields
    from sandboxes.gateway.reply import Reply
    from sandboxes.gateway.routes import Route, Stream
    from sandboxes.gateway.tunnels import Tunnel

# The platform's own ports inside a sandbox: DNS, the proxy, what is led to them, the agent.
REFUSED_PORTS = frozenset({53, 3128, 15001, 15053, AGENT_PORT})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class PortCall:
    """One request to a user port of one sandbox."""

    def __init__(
        self, services: Services, request: web.BaseRequest, route: Route, port: int, *, shared_host: bool
    ) -> None:
        self._services = services
        self._limits = services.limits
        self._request = request
        self._route = route
        self._port = port
        self._path = request.raw_path.partition("?")[0]
        self._is_code_port = port == codecells.CODE_PORT
        self._shared_host = shared_host
        self._code_cell: assess.Record | None = None

    async def handle(self) -> Reply:
        """Serve the request."""
        request, sandbox_id = self._request, self._route.id
        try:
            key_id = self._authenticate()
            if self._port in REFUSED_PORTS or not self._route.ingress.serves(self._port):
                return errors.port_closed(request, sandbox_id, self._port)
            with self._route.open_stream(key_id) as stream:
                return await self._serve(stream)
        except TooManyStreams:
            return errors.too_many_connections(request, sandbox_id, self._limits.streams_per_sandbox)
        except (authentication.Denied, authentication.TrafficDenied) as denial:
            return self._refusal(denial)

    def _authenticate(self) -> str | None:
        """Return the caller's key id, which only the code interpreter's port asks for."""
        headers = self._request.headers
        authentication.check_traffic(self._route.ingress, headers.get("E2b-Traffic-Access-Token"))
        if self._is_code_port and codecells.needs_token(self._request.method, self._path):
            return authentication.by_token(self._route, headers.get("X-Access-Token"))
        return None

    def _refusal(self, denial: Exception) -> Reply:
        request, sandbox_id = self._request, self._route.id
        self._record("port.connect", "connect_port", None).refuse(str(denial), request.headers.get("X-Access-Token"))
        if not self._route.running:
            return errors.resume_refused(request, sandbox_id)
        if isinstance(denial, authentication.TrafficDenied):
            return errors.sandbox_error(request, sandbox_id, 403, str(denial))
        return errors.json_error(request, 401, str(denial))

    async def _serve(self, stream: Stream) -> Reply:
        try:
            if not self._route.running:
                await self._services.resumer.wake(self._route, context.trace(self._request))
            body = Body(self._request, self._limits)
            data = await self._begin_code_cell(stream, body)
            return await self._kept_or_new(stream, body, data)
        except asyncio.CancelledError:
            self._conclude("error", reason=failures.cause(stream.error or ClientGone()))
            raise
        except Exception as error:  # noqa: BLE001  (each is turned into the answer it deserves)
            # A stream that was cut says why; what broke in consequence does not matter.
            reason = stream.error or error
            self._conclude("error", reason=failures.cause(reason))
            return self._failure(reason)

    # --- code cells

    async def _begin_code_cell(self, stream: Stream, body: Body) -> bytes | None:
        """Read and record a code cell; everything else is streamed and recorded as a connection only."""
        if not (self._is_code_port and codecells.runs_code(self._request.method, self._path)):
            return body.at_hand()
        data = await body.whole(self._limits.message, self._limits.message_seconds)
        if data is None:
            raise CellTooLarge
        self._code_cell = self._record("command.start", "exec_code", stream.key_id)
        await self._code_cell.begin(assess.read_message(data), {"port": self._port, "code_cell": True})
        return data

    def _record(self, code: str, tool: str, key_id: str | None) -> assess.Record:
        caller = assess.Caller(key_id, context.origin(self._request), context.trace(self._request))
        return assess.Record(self._services, self._route, caller, code=code, tool=tool)

    def _conclude(self, outcome: str, **details: object) -> None:
        if self._code_cell is not None:
            self._code_cell.conclude(outcome, **details)

    # --- the way through

    async def _kept_or_new(self, stream: Stream, body: Body, data: bytes | None) -> Reply:
        """Relay over a kept connection if there is one.

        Its server may close it at the very moment it is used again; what is safe to ask twice is asked anew.
        """
        key = (self._port, context.origin(self._request), stream.key_id)
        kept = tunnels.kept(self._route, key)
        if kept is not None:
            try:
                return await self._relay(stream, kept, body, data)
            except upstream.Disconnected as error:
                if not error.early or self._request.method not in _SAFE_METHODS or not body.empty:
                    raise
                stream.check()
        record = self._record("port.connect", "connect_port", stream.key_id)
        name = routing.host_name(self._host().decode("latin-1"))
        tunnel = await tunnels.open_new(self._route, key, record, server_name=name)
        return await self._relay(stream, tunnel, body, data)

    async def _relay(self, stream: Stream, tunnel: Tunnel, body: Body, data: bytes | None) -> Reply:
        with tunnel:
            if upgrade.is_upgrade(self._request):
                return await upgrade.relay_upgrade(
                    self._request, tunnel.connection, self._head(None), self._limits, stream, self._answer_fields
                )
            return await self._exchange(stream, tunnel, body, data)

    async def _exchange(self, stream: Stream, tunnel: Tunnel, body: Body, data: bytes | None) -> Reply:
        exchange = Exchange(self._request, tunnel.connection, self._limits, stream)
        framing = None
        if data is None:
            framing = body.framing()
        elif data or self._request.method in {"POST", "PUT", "PATCH"}:
            framing = (b"Content-Length", b"%d" % len(data))
        pump = exchange.send(self._head(framing), body, data)
        outcome = await exchange.receive(pump, transform=self._answer_fields)
        tunnel.clean = outcome.sent_whole and outcome.complete
        good = outcome.complete and outcome.status < 400
        self._conclude("ok" if good else "error", http_status=outcome.status, bytes_out=outcome.bytes_out)
        return outcome.reply

    # --- heads

    def _given_host(self) -> bytes:
        return self._request.headers["Host"].encode("utf-8", "surrogateescape")

    def _host(self) -> bytes:
        """Return the Host that the server sees."""
        return self._route.ingress.host_for(self._port, self._given_host())

    def _head(self, framing: tuple[bytes, bytes] | None) -> bytes:
        request = self._request
        fields: Fields = [(b"Host", self._host())]
        fields += portfields.to_guest(request.raw_headers, cookies=not self._shared_host)
        fields.append((b"X-Forwarded-For", context.origin(request).encode("ascii")))
        if self._route.ingress.mask_host:
            fields.append((b"X-Forwarded-Host", self._given_host()))
        if upgrade.is_upgrade(request):
            fields += upgrade.handshake_fields()
        if framing is not None:
            fields.append(framing)
        return http1.render_head(http1.request_line(request.method, request.raw_path), fields)

    def _answer_fields(self, head: AnswerHead) -> Fields:
        if self._shared_host or self._is_code_port:
            portfields.refuse_leading_away(head, self._given_host())
        return portfields.from_guest(head, shared_host=self._shared_host)

    def _failure(self, error: Exception) -> Reply:
        """Answer for what went wrong before the guest's answer began."""
        request, sandbox_id = self._request, self._route.id
        match error:
            case tunnels.PortClosed():
                return errors.port_closed(request, sandbox_id, self._port)
            case upstream.NoTls():
                return errors.sandbox_error(request, sandbox_id, 502, errors.TLS_FAILED, port=self._port)
            case portfields.LeadsAway():
                return errors.sandbox_error(request, sandbox_id, 502, errors.LEADS_AWAY, port=self._port)
            case TooManyStreams():
                return errors.too_many_connections(request, sandbox_id, self._limits.tunnels_per_sandbox)
            case CellTooLarge():
                return errors.json_error(request, 413, "The code is too large")
            case assess.BadArguments():
                return errors.json_error(request, 400, str(error))
        return failures.answer(request, sandbox_id, self._port, error)


class CellTooLarge(Exception):
    """A code cell is longer than the gateway reads before it judges."""
