"""The risk of code, for the control plane: assessed in child processes that are started once and kept."""

from __future__ import annotations

import atexit
import functools
from typing import TYPE_CHECKING

from audit import cleaning
from audit.risk import seed_v1
from audit.risk.pool import Assessor

if TYPE_CHECKING:
    from audit.risk.findings import Assessment

_SHOWN_FINDINGS = 50


@functools.cache
def _assessor() -> Assessor:
    made = Assessor()
    atexit.register(made.close)
    return made


def assess(code: str, language: str) -> Assessment:
    """Return the assessment of the bytes as they will run."""
    return _assessor().assess_blocking(code.encode(), language)


def described(assessment: Assessment, code: str) -> dict[str, object]:
    """Return an assessment as it is kept and shown, with what the ruleset `seed-v1` says beside it."""
    return {
        "score": assessment.score,
        "band": assessment.band,
        "tier": assessment.tier,
        "findings": [cleaning.plain(finding.as_dict()) for finding in assessment.findings[:_SHOWN_FINDINGS]],
        "ruleset": assessment.ruleset,
        "unassessable": cleaning.plain(assessment.unassessable),
        "seed_v1": {name: said for name, said in seed(code).items() if name != "reasons"},
    }


def seed(code: str) -> dict[str, object]:
    """Return what the ruleset `seed-v1` says of code."""
    scored = seed_v1.score("exec_code", {"code": code})
    return {"score": scored.value, "tier": f"L{seed_v1.tier(code)}", "reasons": scored.reasons}
