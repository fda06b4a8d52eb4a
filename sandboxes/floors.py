"""Which tier a piece of code runs at: never weaker than its own floor, its tenant's, its template's, or what was asked.

The assessor's word only ever raises. What the host can't give is refused with the cause; only the tier `language`,
when nobody asked for it by name, may be replaced, and then by a stronger one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corekit.errors import TierUnavailable
from corekit.tiers import TIERS, level, strongest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.node_client import Json

_WEAKEST = TIERS[0]
_NOWHERE = {
    "language": ("This version does not offer it yet.", "Leave the tier out: the code then runs at a stronger one."),
    "microvm": ("No node offers it.", "Add a node that does, or have a person read the code and run it in a sandbox."),
}


@dataclass(frozen=True, slots=True)
class Demands:
    """What asks for a tier: the code's floor with its reason, and the others, "" where they ask for nothing."""

    floor: str
    floor_reason: str
    tenant: str = ""
    template: str = ""
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The tier, and in a sentence what asked for it."""

    tier: str
    reason: str


def choose(demands: Demands, offered: Mapping[str, Json]) -> Choice:
    """Return the strongest tier that is demanded. `offered` is what the node says of its tiers.

    Raises TierUnavailable, with the cause and the fix, when the host can't give it.
    """
    tier = strongest(*filter(None, (demands.floor, demands.tenant, demands.template, demands.asked)))
    reason = _reason(demands, tier)
    if _is_offered(tier, offered):
        return Choice(tier, reason)
    if tier == _WEAKEST and not demands.asked:
        present = next((name for name in TIERS if _is_offered(name, offered)), None)
        if present is not None:
            return Choice(present, f"{reason} The weakest tier of this host is {_said(present)}.")
    raise _unavailable(tier, reason, offered.get(tier))


def _is_offered(tier: str, offered: Mapping[str, Json]) -> bool:
    return bool(offered.get(tier, {}).get("available"))


def _reason(demands: Demands, tier: str) -> str:
    if tier == demands.floor:
        reason = f"The code demands {_said(tier)}: {demands.floor_reason}"
    elif tier == demands.asked:
        reason = f"The tier {_said(tier)} was asked for."
    elif tier == demands.tenant:
        reason = f"The tenant demands at least {_said(tier)}."
    else:
        reason = f"The template demands at least {_said(tier)}."
    if demands.asked and tier != demands.asked:
        reason = f"Asked for {_said(demands.asked)} and raised. {reason}"
    return reason


def _said(tier: str) -> str:
    return f"{tier} ({level(tier)})"


def _unavailable(tier: str, reason: str, said: Json | None) -> TierUnavailable:
    cause, fix = _NOWHERE.get(tier, ("The host does not offer it.", "Ask its operator: `manage.py doctor` says why."))
    if said is not None:
        cause, fix = str(said.get("reason") or cause), str(said.get("fix") or fix)
    return TierUnavailable(
        f"{reason} This host does not offer {_said(tier)}: {cause} {fix}", field="tier", tier=tier, cause=cause, fix=fix
    )
