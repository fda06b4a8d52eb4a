"""Bundles: names for hosts that belong together, filled by operators or from the host's own client configuration."""

from __future__ import annotations

from typing import NamedTuple

from tenants.models import Bundle

NAME = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"


class BundleNames(NamedTuple):
    """Which bundles a policy may name, and which of them stand for hosts."""

    all: frozenset[str]
    filled: frozenset[str]


def names() -> BundleNames:
    """Return the names of all bundles."""
    rows = list(Bundle.objects.values_list("name", "entries"))
    return BundleNames(
        all=frozenset(name for name, _ in rows), filled=frozenset(name for name, entries in rows if entries)
    )


def nobody_filled_any() -> bool:
    """Say whether every bundle is as it was made: empty, and by nobody's will."""
    return not Bundle.objects.filter(updated_at__isnull=False).exists()
