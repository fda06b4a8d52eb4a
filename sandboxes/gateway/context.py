"""What every handler of one request needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corekit import ids

if TYPE_CHECKING:
    from aiohttp import web

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
    signatures: Signatures
    web: Pool
    resumer: Resumer

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self.settings.limits


def request_id(request: web.BaseRequest) -> str:
    """Return the caller's request id when it looks sane, else a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if ids.is_request_id(given) else ids.new_request_id()


def origin(request: web.BaseRequest) -> str:
    """Return the address of the peer. What a client says about itself does not count."""
    peer = request.protocol.peername
    return str(peer[0]) if isinstance(peer, tuple) and peer else "unix"
