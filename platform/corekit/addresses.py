"""Which addresses are on the public internet: a table of our own, judged by what an address leads to.

The standard library's `is_global` calls some addresses global that lead to the host itself or to a cloud's services
(64:ff9b::7f00:1, 2002:7f00:1::, 168.63.129.16, 224.0.0.1), so it is not asked. Source: IANA's special-purpose
address registries, and the addresses under which cloud providers serve their hosts.
"""

from __future__ import annotations

import ipaddress

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
        *("100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7"),
    ),
)
"""What is not the public internet. What is not in `NEVER` may be opened by an operator who knows what is there."""

_NEVER = {version: tuple(network for network in NEVER if network.version == version) for version in (4, 6)}
_SPECIAL = {version: tuple(network for network in SPECIAL if network.version == version) for version in (4, 6)}


def meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one holds by mapping, else the address itself."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: Address) -> bool:
    """Say whether an address is one of the public internet. An IPv4 address inside an IPv6 one is judged itself."""
    address = meant(address)
    return not any(address in network for network in _SPECIAL[address.version])


def is_never_reached(address: Address) -> bool:
    """Say whether no grant opens an address."""
    address = meant(address)
    return any(address in network for network in _NEVER[address.version])
