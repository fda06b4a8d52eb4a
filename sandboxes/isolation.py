"""How a sandbox is isolated: what its template demands at least, and what a caller may ask for beyond it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corekit.errors import InvalidInput
from corekit.tiers import TIERS, strongest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.models import Template

PROFILES = ("workstation", "hardened")
RUNTIMES = ("crun", "runc", "runsc")
_OWN_KERNEL = "runsc"


@dataclass(frozen=True, slots=True)
class Isolation:
    """A tier, its profile and its runtime; "" leaves the runtime to the node."""

    tier: str
    profile: str
    runtime: str


def resolve(
    template: Template, *, tier: str | None, profile: str | None, runtime: str | None, min_tier: str = ""
) -> Isolation:
    """Return what a sandbox gets: what was asked for, else the template's, and at least the tenant's `min_tier`.

    Raises InvalidInput naming the field for an unknown word and for anything weaker than template and tenant. Whether
    a node can give it is the node's to say.
    """
    got_tier = _at_least("tier", tier, template.tier, TIERS)
    if min_tier and tier is not None:
        _at_least("tier", tier, min_tier, TIERS, whose="tenant")
    elif min_tier:
        got_tier = strongest(got_tier, min_tier)
    got_profile = _at_least("profile", profile, template.profile, PROFILES)
    if got_tier == "container":
        return Isolation(got_tier, got_profile, _runtime(runtime, template))
    if runtime:
        raise InvalidInput(f"The tier {got_tier} has no choice of runtimes.", field="runtime")
    return Isolation(got_tier, got_profile, "")


def _at_least(field: str, asked: str | None, minimum: str, order: Sequence[str], *, whose: str = "template") -> str:
    if asked is None:
        return minimum
    if asked not in order:
        raise InvalidInput(f"{field} must be one of {', '.join(order)}.", field=field)
    if order.index(asked) < order.index(minimum):
        raise InvalidInput(
            f"The {whose} demands at least the {field} {minimum}, and {asked} isolates less.",
            field=field,
            minimum=minimum,
        )
    return asked


def _runtime(asked: str | None, template: Template) -> str:
    if not asked:
        return template.runtime
    if asked not in RUNTIMES:
        raise InvalidInput(f"runtime must be one of {', '.join(RUNTIMES)}.", field="runtime")
    if template.runtime == _OWN_KERNEL != asked:
        raise InvalidInput(
            f"The template demands the runtime {_OWN_KERNEL}, and {asked} isolates less.",
            field="runtime",
            minimum=_OWN_KERNEL,
        )
    return asked
