"""Bundles: names for hosts that belong together, filled by operators or from the host's own client configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tenants.models import Bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

KNOWN = ("python", "npm", "debian", "git")
"""Bundles that every policy may name, also before anybody filled them."""
NAME = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"


class BundleNames(NamedTuple):
    """Which bundles a policy may name, and which of them stand for hosts."""

    all: frozenset[str]
    filled: frozenset[str]


def names() -> BundleNames:
    """Return the names of all bundles."""
    rows: Sequence[tuple[str, list[str]]] = list(Bundle.objects.values_list("name", "entries"))
    return BundleNames(
        all=frozenset((*KNOWN, *(name for name, _ in rows))),
        filled=frozenset(name for name, entries in rows if entries),
    )


def listed() -> list[Bundle]:
    """Return all bundles by name, also the known ones that nobody filled."""
    rows = {bundle.name: bundle for bundle in Bundle.objects.all()}
    for name in KNOWN:
        rows.setdefault(name, Bundle(name=name))
    return [rows[name] for name in sorted(rows)]
