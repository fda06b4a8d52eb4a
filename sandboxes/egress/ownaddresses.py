"""The addresses of the host itself, which no sandbox may reach by way of egress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from corekit.localaddresses import local_addresses

if TYPE_CHECKING:
    from corekit.addresses import Address

_KEPT_S = 5.0


class OwnAddresses:
    """Those of this network namespace, read again every few seconds, and those that it was told of."""

    def __init__(self, told: frozenset[Address]) -> None:
        self._told = told
        self._known: frozenset[Address] = frozenset()
        self._read_at = float("-inf")

    def now(self) -> frozenset[Address]:
        """Return them. OSError when the kernel does not say: then nothing is known to be safe."""
        if time.monotonic() - self._read_at > _KEPT_S:
            self._known = self._told | local_addresses()
            self._read_at = time.monotonic()
        return self._known
