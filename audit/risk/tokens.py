"""Judge what scoped tokens were used for: single refusals by their reason, many of them by their number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from audit.risk.findings import Finding
from audit.risk.scoring import RULES, combine

if TYPE_CHECKING:
    from audit.risk.findings import Assessment

REUSED, REFLECTED = "reused", "reflected"
WINDOW_S = 600.0
"""How long refusals are counted."""
MOST = 20
"""So many refusals are counted at most."""
# What says nothing about who asked: they are counted, but no refusal for them alone is a finding.
INNOCENT = frozenset({"vault_unavailable", "upstream_unavailable", "rate", "budget"})
_RULES: list[dict[str, Any]] = json.loads((RULES / "tokens.json").read_bytes())["rules"]


def assess(reason: str, refusals: int = 0) -> Assessment | None:
    """Return what a refusal or an answer shows; None when that is nothing.

    `refusals` is how many there were within the window, this one among them. Their number speaks once, when it is met.
    """
    findings = [
        Finding(
            rule=rule["id"],
            title=rule["title"],
            kind=rule["kind"],
            weight=rule["weight"],
            tier=rule["tier"],
            message=rule["message"].format(amount=refusals),
        )
        for rule in _RULES
        if reason in rule.get("reasons", ()) or refusals == rule.get("refusals")
    ]
    return combine("token", findings) if findings else None
