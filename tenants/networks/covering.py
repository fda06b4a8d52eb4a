"""Whether what a policy allows gets through the layers above it: what its author should know before a flow fails."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from corekit.addresses import is_public
from corekit.netrules.entries import Suffix, parse_entry
from corekit.netrules.hosts import Name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from corekit.netrules.entries import Entry, Target
    from tenants.networks.specs import Checked


_WEB = {443: ("tls",), 80: ("http", "ws")}


def warn_of_ceiling(checked: Checked, document: Mapping[str, Any]) -> None:
    """Add a warning for every entry that the tenant's ceiling or the platform's deny list stops, whole or in part.

    `document` is what the spec compiles to: its last layer is the ceiling.
    """
    ceiling = document["layers"][-1]
    entries = [parse_entry(text, any_port=True, stored=True) for text in ceiling["egress"]]
    allowed = [entry for entry in entries if not entry.deny]
    denied = [entry for entry in entries if entry.deny]
    forbidden = [parse_entry(text, any_port=True, stored=True) for text in document["deny"]]
    if checked.spec["mode"] == "allow" and ceiling["mode"] != "allow":
        checked.warn("mode", "not_in_ceiling", "Only what the tenant's ceiling lists gets through, not every host.")
    private = [ip_network(text) for text in document["private"]]
    for place, entry in checked.entries.items():
        if entry.deny:
            continue
        where = f"egress[{place}]"
        if _is_special(entry.host) and not any(_holds(granted, entry.host) for granted in private):
            checked.warn(where, "not_public", f"{entry.shown} is not public: it needs an operator's grant.")
        elif any(_overlap(one, entry) for one in forbidden):
            checked.warn(where, "operator_deny", f"{entry.shown} meets what the operator denies to every sandbox.")
        elif any(_overlap(one, entry) for one in denied) or not (
            any(_covers(one, entry) for one in allowed) or (ceiling["mode"] == "allow" and _is_usual(entry))
        ):
            checked.warn(
                where, "not_in_ceiling", f"{entry.shown} does not get through the tenant's ceiling, or not all of it."
            )


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
