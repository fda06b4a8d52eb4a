"""Whether what a policy allows gets through the layers above it: what its author should know before a flow fails."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from corekit.addresses import is_public
from corekit.netrules.entries import Suffix, parse_entry
from corekit.netrules.hosts import Name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from corekit.addresses import Network
    from corekit.netrules.entries import Entry, Target
    from tenants.networks.specs import Checked

_WEB = {443: ("tls",), 80: ("http", "ws")}


@dataclass(frozen=True, slots=True)
class _Above:
    """What lies above a policy: the tenant's ceiling, the platform's deny list, and the granted ranges."""

    opens: bool
    allowed: Sequence[Entry]
    denied: Sequence[Entry]
    forbidden: Sequence[Entry]
    private: Sequence[Network]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> _Above:
        ceiling = document["layers"][-1]
        entries = _parsed(ceiling["egress"])
        return cls(
            opens=ceiling["mode"] == "allow",
            allowed=[entry for entry in entries if not entry.deny],
            denied=[entry for entry in entries if entry.deny],
            forbidden=_parsed(document["deny"]),
            private=[ip_network(text) for text in document["private"]],
        )

    def stops(self, entry: Entry) -> tuple[str, str] | None:
        """Return the code and the sentence of what stops an entry, in whole or in part."""
        if _is_special(entry.host) and not any(_holds(granted, entry.host) for granted in self.private):
            return "not_public", f"{entry.shown} is not public: it needs an operator's grant."
        if any(_overlap(one, entry) for one in self.forbidden):
            return "operator_deny", f"{entry.shown} meets what the operator denies to every sandbox."
        passes = any(_covers(one, entry) for one in self.allowed) or (self.opens and _is_usual(entry))
        if not passes or any(_overlap(one, entry) for one in self.denied):
            return "not_in_ceiling", f"{entry.shown} does not get through the tenant's ceiling, or not all of it."
        return None


def warn_of_ceiling(checked: Checked, document: Mapping[str, Any], bundles: Mapping[str, Sequence[str]]) -> None:
    """Add a warning for every entry that the tenant's ceiling or the platform's deny list stops, whole or in part.

    `document` is what the spec compiles to: its last layer is the ceiling. Of a bundle the first host that is stopped
    is named.
    """
    above = _Above.of(document)
    if checked.spec["mode"] == "allow" and not above.opens:
        checked.warn("mode", "not_in_ceiling", "Only what the tenant's ceiling lists gets through, not every host.")
    named = {place: _parsed(bundles.get(name, ())) for place, name in checked.bundles.items()}
    for place, entries in sorted({**{at: [entry] for at, entry in checked.entries.items()}, **named}.items()):
        stopped = next((why for entry in entries if not entry.deny and (why := above.stops(entry))), None)
        if stopped is not None:
            prefix = f"@{checked.bundles[place]}: " if place in checked.bundles else ""
            checked.warn(f"egress[{place}]", stopped[0], prefix + stopped[1])


def _parsed(texts: Iterable[str]) -> list[Entry]:
    return [parse_entry(text, any_port=True, stored=True) for text in texts]


def _is_usual(entry: Entry) -> bool:
    """Say whether a rule passes where every public host does: there, the web's ports speak the web's protocols."""
    if not isinstance(entry.host, Name | Suffix):
        return True
    first, last = entry.ports
    return all(entry.protocol_at(port) in spoken for port, spoken in _WEB.items() if first <= port <= last)


def _is_special(host: Target) -> bool:
    return not isinstance(host, Name | Suffix) and not is_public(host.network_address)


def _covers(wide: Entry, narrow: Entry) -> bool:
    inside = wide.ports[0] <= narrow.ports[0] and narrow.ports[1] <= wide.ports[1]
    return inside and _holds(wide.host, narrow.host) and all(_speaks(wide, narrow, port) for port in narrow.ports)


def _speaks(wide: Entry, narrow: Entry, port: int) -> bool:
    theirs, ours = wide.protocol_at(port), narrow.protocol_at(port)
    return theirs in {ours, "tcp"} or (theirs, ours) == ("ws", "http")


def _overlap(one: Entry, other: Entry) -> bool:
    meet = one.ports[0] <= other.ports[1] and other.ports[0] <= one.ports[1]
    return meet and (_holds(one.host, other.host) or _holds(other.host, one.host))


def _holds(wide: Target, narrow: Target) -> bool:
    if isinstance(wide, Name):
        return wide == narrow
    if isinstance(wide, Suffix):
        below = isinstance(narrow, Name | Suffix) and narrow.text.endswith(f".{wide.text}")
        return below or wide == narrow
    if isinstance(wide, IPv4Network):
        return isinstance(narrow, IPv4Network) and narrow.subnet_of(wide)
    return isinstance(narrow, IPv6Network) and narrow.subnet_of(wide)
