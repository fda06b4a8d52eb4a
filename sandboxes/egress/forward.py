"""HTTP, plain or out of TLS that ends here: each request is judged on its own, and written anew for the server.

Nothing of a request that its head does not name reaches a server, and an answer is written anew for the client too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11

from corekit.netrules.reasons import Reason
from sandboxes.egress import broker
from sandboxes.egress.dial import dial, find_route
from sandboxes.egress.exchange import Exchange
from sandboxes.egress.head import Headers, Request, parse, read_head
from sandboxes.egress.intercept import begin_host_tls
from sandboxes.egress.passage import BrokerPassage, Passage, speaks
from sandboxes.egress.pump import pass_everything
from sandboxes.egress.refusals import Refused
from sandboxes.egress.rewriting import Rewritten, rewrite
from sandboxes.egress.securewire import SecureWire
from sandboxes.egress.target import BROKER_NAME, HTTP_PORT, HTTPS_PORT, PROXY_NAME, Target, of_absolute, of_authority

if TYPE_CHECKING:
    from sandboxes.egress.corporate import Credentials
    from sandboxes.egress.flow import Flow

BROKER_PORT = HTTP_PORT
_WEBSOCKET = b"websocket"


async def serve_requests(flow: Flow, request: Request | None, fixed: Target | None) -> str:
    """Serve this request and those that follow on the connection; return how it ended. Raises Refused and Gone.

    `fixed` is what a tunnel was opened to: then every request must be for it. Without it each names its own target.
    """
    forwarder = _Forwarder(flow, fixed)
    limits = flow.services.settings.limits
    while True:
        if request is None:
            if not await flow.next_begins():
                return "done"
            flow.allow(limits.head_seconds)
            head = await read_head(flow.client, limits.head)
            if head is None:
                return "done"
            request = parse(head)
        how = await forwarder.pass_on(request)
        if how is not None:
            return how
        request = None


class _Forwarder:
    """Keeps the connection to a server as long as requests are for it."""

    def __init__(self, flow: Flow, fixed: Target | None) -> None:
        self._flow = flow
        self._fixed = fixed
        # Requests that came in TLS which ends here go on in TLS.
        self._secure = isinstance(flow.client, SecureWire)
        self._usual_port = HTTPS_PORT if self._secure else HTTP_PORT
        # Where the corporate proxy wants to see whole URLs.
        self._credentials: Credentials | None = None

    async def pass_on(self, request: Request) -> str | None:
        """Pass one request and its answer; return how the connection ends, None when it goes on."""
        flow = self._flow
        flow.run_on()
        flow.method = request.method.decode("ascii", "replace")[:16]
        parser = request.parser()
        target, path = self._target_of(request)
        if request.method == b"CONNECT":
            raise Refused(Reason.LOOP if target.name == PROXY_NAME else Reason.NOT_HTTP)
        passage = self._admit(target, request)
        rewritten = await self._rewritten(request, target, path)
        if flow.server is None:
            await self._open(passage)
        exchange = Exchange(flow, request, parser, self._written(request, target, path, rewritten), rewritten)
        flow.run_on()
        await exchange.run()
        if exchange.switched:
            return await pass_everything(flow)
        flow.can_answer = True
        if not exchange.server_goes_on:
            flow.end_passage("done")
        return None if exchange.client_goes_on else "done"

    def _target_of(self, request: Request) -> tuple[Target, bytes]:
        flow = self._flow
        absolute = not request.target.startswith((b"/", b"*"))
        if absolute and request.method == b"CONNECT":
            raise Refused(Reason.LOOP)
        if not absolute and self._fixed is None:
            raise Refused(Reason.BAD_HOST)
        said = request.value(b"host")
        if absolute:
            target, path = of_absolute(request.target)
        else:
            target, path = of_authority(said or b"", self._usual_port), request.target
        flow.asked = target
        named = target if said is None else of_authority(said, self._usual_port)
        if self._fixed not in (None, target) or named != target:
            raise Refused(Reason.HOST_MISMATCH)
        return target, path

    def _admit(self, target: Target, request: Request) -> Passage:
        """Return the passage to the target that may take this request."""
        flow, passage = self._flow, self._flow.passage
        if passage is not None and not self._serves(passage, target):
            flow.end_passage("done")
            passage = None
        if passage is None:
            if target.name == PROXY_NAME:
                raise Refused(Reason.LOOP)
            if target.name == BROKER_NAME and target.port != BROKER_PORT:
                raise Refused(Reason.PORT)
            kind = BrokerPassage if target.name == BROKER_NAME else Passage
            passage = flow.passage = kind(flow.services, flow.sandbox, target, flow.via)
        if not speaks(passage.verdict, "tls" if self._secure else "http"):
            raise Refused(Reason.NOT_TLS)
        passage.protocol = passage.protocol or ("tls" if self._secure else "http")
        passage.method = passage.method or flow.method
        if _WEBSOCKET in request.tokens(b"upgrade"):
            if not speaks(passage.verdict, "ws"):
                raise Refused(Reason.UPGRADE)
            passage.protocol = "ws"
        return passage

    async def _rewritten(self, request: Request, target: Target, path: bytes) -> Rewritten:
        if isinstance(self._flow.passage, BrokerPassage):
            return Rewritten(request.end_to_end())
        return await rewrite(self._flow, request, target, path, "https" if self._secure else "http")

    def _serves(self, passage: Passage, target: Target) -> bool:
        """Tell whether the connection that is there may take another request."""
        server = self._flow.server
        return passage.target == target and passage.may_stay() and (server is None or server.is_quiet())

    async def _open(self, passage: Passage) -> None:
        flow = self._flow
        flow.allow(flow.services.settings.limits.connect_seconds, "connect")
        self._credentials = None
        if isinstance(passage, BrokerPassage):
            flow.server = broker.connect(flow.services)
            return
        route = await find_route(flow.services, flow.sandbox, passage.target)
        passage.direct = route.direct
        if self._secure:
            wire, passage.address = await dial(flow.services, route)
            flow.server = await begin_host_tls(flow, wire, passage.target)
            return
        self._credentials = route.via
        flow.server, passage.address = await dial(flow.services, route, tunnel=route.via is None)

    def _written(self, request: Request, target: Target, path: bytes, rewritten: Rewritten) -> h11.Request:
        """Return the request as the server gets it."""
        headers: Headers = [(b"Host", target.authority(self._usual_port).encode()), *rewritten.headers]
        for name in (b"content-length", b"transfer-encoding"):
            value = request.value(name)
            if value is not None:
                headers.append((name, value))
        if _WEBSOCKET in request.tokens(b"upgrade"):
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", _WEBSOCKET)]
        if isinstance(self._flow.passage, BrokerPassage):
            headers += broker.identity(self._flow.sandbox)
        if self._credentials is not None:
            headers += self._credentials.headers()
            path = b"http://" + target.authority().encode() + path
        return h11.Request(method=request.method, target=path, headers=headers)
