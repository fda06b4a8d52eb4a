"""An assessment as events have it: without a word of the code, which events never hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit.risk.findings import Assessment, Finding

MAX_FINDINGS = 20
# Their messages are made of our own words alone; others quote names, paths and hosts.
_OUR_WORDS = ("call.", "context.", "input.")


def columns(assessment: Assessment) -> dict[str, object]:
    """Return score, band, tier, rules and findings: the heaviest of each rule first, then what room there is.

    A finding keeps its place in the code, so that whoever has the code finds the words that it is about.
    """
    heaviest = sorted(assessment.findings, key=lambda found: -found.weight)
    first = {found.rule: found for found in reversed(heaviest)}
    ordered = [*(found for found in heaviest if first[found.rule] is found)]
    ordered += [found for found in heaviest if first[found.rule] is not found]
    return {
        "risk_score": assessment.score,
        "risk_band": assessment.band,
        "risk_tier": assessment.tier,
        "risk_ruleset": assessment.ruleset,
        "risk_reasons": list(dict.fromkeys(found.rule for found in ordered))[:MAX_FINDINGS],
        "risk_findings": [_finding(found) for found in ordered[:MAX_FINDINGS]],
    }


def _finding(found: Finding) -> dict[str, object]:
    message = found.message if found.rule.startswith(_OUR_WORDS) else ""
    return replace(found, snippet="", message=message).as_dict()
