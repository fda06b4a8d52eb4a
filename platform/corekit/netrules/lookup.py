"""Entries by what they match, so that a flow is judged in the same time whether a policy has one entry or hundreds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekit.netrules.entries import Entry, Suffix
from corekit.netrules.hosts import Name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corekit.netrules.hosts import Host


class Table:
    """Entries by name, by the name that they stand below, and by network."""

    __slots__ = ("_below", "_named", "_networks")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._named: dict[str, tuple[Entry, ...]] = {}
        self._below: dict[str, tuple[Entry, ...]] = {}
        # By version, then by how many bits of an address are not the network's, then by the network's bits.
        self._networks: dict[int, dict[int, dict[int, tuple[Entry, ...]]]] = {4: {}, 6: {}}
        for entry in sorted(entries, key=lambda entry: entry.text):
            self._add(entry)
        for by_free in self._networks.values():
            narrowest_first = sorted(by_free.items())
            by_free.clear()
            by_free.update(narrowest_first)

    def _add(self, entry: Entry) -> None:
        host = entry.host
        if isinstance(host, Name):
            self._named[host.text] = (*self._named.get(host.text, ()), entry)
        elif isinstance(host, Suffix):
            self._below[host.text] = (*self._below.get(host.text, ()), entry)
        else:
            free = host.max_prefixlen - host.prefixlen
            same = self._networks[host.version].setdefault(free, {})
            bits = int(host.network_address) >> free
            same[bits] = (*same.get(bits, ()), entry)

    def matching(self, host: Host) -> tuple[Entry, ...]:
        """Return the entries for a host, whatever the port: the narrowest first."""
        if not isinstance(host, Name):
            bits = int(host)
            same = self._networks[host.version]
            return tuple(entry for free, by_bits in same.items() for entry in by_bits.get(bits >> free, ()))
        found = self._named.get(host.text, ())
        if self._below:
            rest = host.text
            while (dot := rest.find(".")) >= 0:
                rest = rest[dot + 1 :]
                found += self._below.get(rest, ())
        return found
