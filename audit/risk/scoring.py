"""How findings become a tier, a score and a band."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from audit.risk.findings import Assessment, Finding, Tier, band_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RULES = Path(__file__).parent / "rules"
_NOTHING = "It only computes."


def ruleset() -> str:
    """Return the name of the rules as they are on disk: other rules never go by the same name."""
    digest = hashlib.sha256()
    for path in sorted(RULES.glob("*.json")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"gatehouse-v1:{digest.hexdigest()[:12]}"


RULESET = ruleset()


def combine(
    language: str, findings: Sequence[Finding], *, unassessable: str | None = None, ms: float = 0.0
) -> Assessment:
    """Add the findings up: the highest tier wins, and each rule raises the score once, however often it matched.

    The score is a noisy-or, 100 * (1 - product of (1 - weight / 100)): bounded, and the order does not matter.
    """
    if unassessable is not None:
        findings = [*findings, _unassessable(unassessable)]
    ordered = sorted(findings, key=lambda found: (found.tier, found.weight), reverse=True)
    floor = ordered[0] if ordered else None
    score = noisy_or((found.rule, found.weight) for found in findings)
    tier: Tier = floor.tier if floor else "L0"
    return Assessment(
        ruleset=RULESET,
        language=language,
        tier=tier,
        score=score,
        band=band_of(score),
        findings=tuple(ordered),
        floor_reason=floor.message if floor and tier != "L0" else _NOTHING,
        unassessable=unassessable,
        ms=round(ms, 3),
    )


def noisy_or(weighted: Iterable[tuple[str, int]]) -> int:
    """Return the score of rules with their weights; of a rule that is named twice the heavier weight counts."""
    weights: dict[str, int] = {}
    for rule, weight in weighted:
        weights[rule] = max(weight, weights.get(rule, 0))
    harmless = 1.0
    # Sorted, so that rounding can't depend on the order in which the rules matched.
    for rule in sorted(weights):
        harmless *= 1 - weights[rule] / 100
    return round(100 * (1 - harmless))


def _unassessable(reason: str) -> Finding:
    return Finding(
        rule="input.unassessable",
        title="Code that cannot be assessed",
        kind="indicator",
        weight=35,
        tier="L2",
        message=f"{reason} What cannot be read is never taken for harmless.",
    )
