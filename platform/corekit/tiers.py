"""The isolation tiers, from the weakest to the strongest, by name and by the level that risk scoring speaks of."""

from __future__ import annotations

TIERS = ("language", "process", "container", "microvm")
LEVELS = ("L0", "L1", "L2", "L3")
_NAMES = dict(zip(LEVELS, TIERS, strict=True)) | {name: name for name in TIERS}


def named(word: str) -> str | None:
    """Return the tier of a name or a level; None for any other word."""
    return _NAMES.get(word)


def level(tier: str) -> str:
    """Return the level of a tier."""
    return LEVELS[TIERS.index(tier)]


def strongest(*tiers: str) -> str:
    """Return the strongest of some tiers."""
    return max(tiers, key=TIERS.index)
