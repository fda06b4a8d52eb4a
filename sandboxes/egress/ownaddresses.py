"""The addresses of the host itself, which no sandbox may reach by way of egress."""

from __future__ import annotations

import re
import time
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corekit.addresses import Address

_KEPT_S = 5.0
_IPV4 = Path("/proc/net/fib_trie")
_IPV6 = Path("/proc/net/if_inet6")
_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


class OwnAddresses:
    """Those of this network namespace, read again every few seconds, and those that it was told of."""

    def __init__(self, told: frozenset[Address]) -> None:
        self._told = told
        self._known: frozenset[Address] = frozenset()
        self._read_at = float("-inf")

    def now(self) -> frozenset[Address]:
        """Return them. OSError when the kernel does not say: then nothing is known to be safe."""
        if time.monotonic() - self._read_at > _KEPT_S:
            self._known = self._told | _local()
            self._read_at = time.monotonic()
        return self._known


def _local() -> frozenset[Address]:
    found: set[Address] = {ip_address(text) for text in _LOCAL.findall(_IPV4.read_text())}
    if _IPV6.exists():
        found |= {IPv6Address(bytes.fromhex(line.split()[0])) for line in _IPV6.read_text().splitlines()}
    return frozenset(found)
