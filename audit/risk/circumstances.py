"""What counts beside the code: how it is isolated, whether there is a network, and what was refused lately."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from audit.risk.findings import TIERS, Finding
from audit.risk.scoring import combine

if TYPE_CHECKING:
    from audit.risk.findings import Assessment

_EACH_DENIAL = 5
_MOST_FOR_DENIALS = 50
_WEAK_ISOLATION = 15
_DENIALS_HALVE_S = 300.0
_DENIALS_COUNT_S = 600.0


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`tier` is the isolation's level, "" when it is not known. `denials` are those of late, the older the lesser."""

    tier: str = ""
    network: bool = True
    denials: float = 0.0


def in_context(assessment: Assessment, around: Circumstances) -> Assessment:
    """Return the assessment with what the circumstances add or take. Its tier stays: that is the code's own."""
    added = []
    if around.tier in TIERS and assessment.tier > around.tier:
        added.append(_isolation(assessment.tier, around.tier))
    if (weight := min(_MOST_FOR_DENIALS, round(_EACH_DENIAL * around.denials))) > 0:
        added.append(_denials(weight))
    findings = assessment.findings if around.network else tuple(map(_without_network, assessment.findings))
    if not added and findings == assessment.findings:
        return assessment
    # What could not be read stays among the findings: `combine` is not to add it again.
    whole = combine(assessment.language, [*findings, *added], ms=assessment.ms)
    return replace(whole, floor_reason=assessment.floor_reason, unassessable=assessment.unassessable)


def _without_network(finding: Finding) -> Finding:
    """Return a capability to use the network at half its weight where there is none; what it shows of intent stays."""
    if finding.kind != "capability" or ".net." not in f"{finding.rule}.":
        return finding
    return replace(finding, weight=finding.weight // 2)


def _isolation(needed: str, given: str) -> Finding:
    return Finding(
        rule="context.isolation",
        title="Runs with less isolation than it needs",
        kind="indicator",
        weight=_WEAK_ISOLATION,
        tier="L0",
        message=f"It needs {needed} and runs at {given}.",
    )


def _denials(weight: int) -> Finding:
    return Finding(
        rule="context.denials",
        title="Refused lately",
        kind="indicator",
        weight=weight,
        tier="L0",
        message="Other acts in this sandbox were refused a short while ago.",
    )


class Denials:
    """How many acts were refused lately: each counts whole at first, half after five minutes, not after ten."""

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = -math.inf

    def add(self, now: float) -> None:
        """Count one more, at a time in seconds."""
        self._value = self.value(now) + 1
        self._at = now

    def value(self, now: float) -> float:
        """Return what they count at a time in seconds."""
        passed = now - self._at
        return 0.0 if passed >= _DENIALS_COUNT_S else self._value * 0.5 ** (passed / _DENIALS_HALVE_S)
