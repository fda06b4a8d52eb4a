"""The tier of a piece of code: the strongest of all demands, and never a weaker one than the host was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from corekit.errors import TierUnavailable
from corekit.tiers import TIERS
from sandboxes.floors import Demands, choose

HERE: dict[str, Any] = {"process": {"available": True}, "container": {"available": True}}
EVERYTHING: dict[str, Any] = {tier: {"available": True} for tier in TIERS}


@pytest.mark.parametrize("floor", TIERS)
@pytest.mark.parametrize("other", TIERS)
@pytest.mark.parametrize("whose", ["tenant", "template", "asked"])
def test_the_strongest_demand_decides(floor: str, other: str, whose: str) -> None:
    choice = choose(Demands(floor, "It is so.", **{whose: other}), EVERYTHING)
    assert choice.tier == TIERS[max(TIERS.index(floor), TIERS.index(other))]


def test_the_reason_says_what_asked_for_it() -> None:
    def reason(**demands: str) -> str:
        return choose(Demands("process", "It reads a file.", **demands), HERE).reason

    assert reason() == "The code demands process (L1): It reads a file."
    assert reason(asked="container") == "The tier container (L2) was asked for."
    assert reason(tenant="container") == "The tenant demands at least container (L2)."
    assert reason(template="container") == "The template demands at least container (L2)."
    assert reason(asked="language") == (
        "Asked for language (L0) and raised. The code demands process (L1): It reads a file."
    )


def test_code_that_needs_nothing_gets_the_weakest_tier_there_is() -> None:
    nothing = Demands("language", "It only computes.")
    assert choose(nothing, EVERYTHING).tier == "language"
    assert choose(nothing, HERE).tier == "process"
    assert choose(nothing, {"container": {"available": True}}).tier == "container"
    assert choose(nothing, HERE | {"process": {"available": False}}).tier == "container"


def test_the_weakest_tier_by_name_is_not_replaced() -> None:
    with pytest.raises(TierUnavailable, match=r"does not offer language \(L0\)"):
        choose(Demands("language", "It only computes.", asked="language"), HERE)


def test_what_the_host_does_not_offer_is_never_replaced_by_less() -> None:
    with pytest.raises(TierUnavailable, match=r"does not offer microvm \(L3\)") as refused:
        choose(Demands("microvm", "It opens a shell to another host."), HERE)
    assert (refused.value.status, refused.value.field, refused.value.details["tier"]) == (409, "tier", "microvm")


def test_the_nodes_own_cause_and_fix_are_passed_on() -> None:
    said = {"available": False, "reason": "bubblewrap is missing.", "fix": "Install bubblewrap."}
    with pytest.raises(TierUnavailable, match=r"bubblewrap is missing\. Install bubblewrap\.") as refused:
        choose(Demands("process", "It reads a file."), HERE | {"process": said})
    assert refused.value.details == {
        "tier": "process",
        "cause": "bubblewrap is missing.",
        "fix": "Install bubblewrap.",
    }


def test_a_host_without_any_tier() -> None:
    with pytest.raises(TierUnavailable, match="does not offer language"):
        choose(Demands("language", "It only computes."), {})
