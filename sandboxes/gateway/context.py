"""What every handler of one request needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from corekit import tracing
from corekit.tracing import Trace

if TYPE_CHECKING:
    from audit.risk.pool import Assessor
    from sandboxes.gateway.authentication import Signatures
    from sandboxes.gateway.resume import Resumer
    from sandboxes.gateway.routes import RouteTable
    from sandboxes.gateway.settings import GatewaySettings, Limits
    from sandboxes.gateway.tap import Tap
    from sandboxes.gateway.upstream import Pool


@dataclass(frozen=True, slots=True)
class Services:
    """The gateway's long-lived parts."""

    settings: GatewaySettings
    table: RouteTable
    tap: Tap
    assessor: Assessor
    signatures: Signatures
    web: Pool
    resumer: Resumer

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self.settings.limits


_TRACE = web.RequestKey("trace", Trace)


def trace(request: web.BaseRequest) -> Trace:
    """Return the request's ids: the caller's where they look sane, else new ones, each time the same."""
    known = request.get(_TRACE)
    if known is None:
        headers = request.headers
        known = request[_TRACE] = tracing.read(
            headers.get("X-Request-Id", ""), headers.get("traceparent", ""), headers.get("User-Agent", "")
        )
    return known


def origin(request: web.BaseRequest) -> str:
    """Return the address of the peer. What a client says about itself does not count."""
    peer = request.protocol.peername
    return str(peer[0]) if isinstance(peer, tuple) and peer else "unix"
