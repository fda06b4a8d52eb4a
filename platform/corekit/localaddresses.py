"""The addresses of this machine, as far as the caller's network namespace shows them."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corekit.addresses import Address

_IPV4 = Path("/proc/net/fib_trie")
_IPV6 = Path("/proc/net/if_inet6")
_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


def local_addresses() -> frozenset[Address]:
    """Return them. OSError when the kernel does not say."""
    found: set[Address] = {ip_address(text) for text in _LOCAL.findall(_IPV4.read_text())}
    if _IPV6.exists():
        found |= {IPv6Address(bytes.fromhex(line.split()[0])) for line in _IPV6.read_text().splitlines()}
    return frozenset(found)
