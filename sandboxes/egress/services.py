"""What all flows of the process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.egress import corporate

if TYPE_CHECKING:
    from sandboxes.egress.credentials import Credentials
    from sandboxes.egress.events import Outbox
    from sandboxes.egress.intercept import HostTrust
    from sandboxes.egress.ownaddresses import OwnAddresses
    from sandboxes.egress.poller import Poller
    from sandboxes.egress.resolver import Resolver
    from sandboxes.egress.settings import EgressSettings


@dataclass(frozen=True, slots=True)
class Services:
    """The settings, and who resolves and records."""

    settings: EgressSettings
    resolver: Resolver
    outbox: Outbox
    own: OwnAddresses
    poller: Poller
    credentials: Credentials
    host_trust: HostTrust

    def proxy_login(self, proxy: str) -> corporate.Credentials:
        """Return what a corporate proxy wants to see."""
        return corporate.read_credentials(self.settings.proxy_logins, proxy)
