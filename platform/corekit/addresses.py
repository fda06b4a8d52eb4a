"""Which addresses are on the public internet: a table of our own, judged by what an address leads to.

The standard library's `is_global` calls some addresses global that lead to the host itself or to a cloud's services
(64:ff9b::7f00:1, 2002:7f00:1::, 168.63.129.16, 224.0.0.1), so it is not asked. Source: IANA's special-purpose
address registries, and the addresses under which cloud providers serve their hosts.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
)
"""Where cloud providers tell a host about itself, its credentials included."""
METADATA_NAMES = frozenset({"metadata.google.internal"})

NEVER = _networks(
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("168.63.129.16/32", "100.100.100.200/32"),
    *("::/128", "::1/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16"),
    *("fe80::/10", "fec0::/10", "ff00::/8", "fd00:ec2::254/128"),
)
"""What no operator can open: it leads to the host itself, to who runs it, to everybody, or on to another address."""

SPECIAL = (
    *NEVER,
    *_networks(
        *("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24"),
        *("100::/64", "100:0:0:1::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7"),
    ),
)
"""What is not the public internet. What is not in `NEVER` may be opened by an operator who knows what is there."""


class _Ranges:
    """Networks as sorted ranges of numbers: an address is looked up for every connection."""

    def __init__(self, networks: Iterable[Network]) -> None:
        spans = sorted((one.version, int(one.network_address), int(one.broadcast_address)) for one in networks)
        self._firsts: dict[int, list[int]] = {4: [], 6: []}
        self._lasts: dict[int, list[int]] = {4: [], 6: []}
        for version, first, last in spans:
            lasts = self._lasts[version]
            # A network in a wider one adds nothing.
            if not lasts or last > lasts[-1]:
                self._firsts[version].append(first)
                lasts.append(last)

    def __contains__(self, address: Address) -> bool:
        bits = int(address)
        place = bisect_right(self._firsts[address.version], bits)
        return place > 0 and bits <= self._lasts[address.version][place - 1]


_NEVER, _SPECIAL = _Ranges(NEVER), _Ranges(SPECIAL)


def meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one holds by mapping, else the address itself."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: Address) -> bool:
    """Say whether an address is one of the public internet. An IPv4 address inside an IPv6 one is judged itself."""
    return meant(address) not in _SPECIAL


def is_never_reached(address: Address) -> bool:
    """Say whether no grant opens an address."""
    return meant(address) in _NEVER
