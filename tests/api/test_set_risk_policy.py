"""Tenants say over REST which scores count, which rules do not for a while, and see how risky their sandboxes are."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event, RiskLevel, RiskPolicy, RiskSuppression
from corekit import clock
from tests.api.rest import Rest
from tests.sandboxes.fixtures import caller

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.api.rest import Operator
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db

POLICY = {"flag_at": 50, "pause_at": 80, "cut_at": 90, "void_at": 85, "refuse_at": None, "unassessable_tier": "L3"}


def soon(**more: Any) -> dict[str, Any]:
    """Return what mutes a rule for a week."""
    return {"rule": "sh.net.client", "until": clock.to_rfc3339(clock.now() + timedelta(days=7)), "note": "CI"} | more


def test_without_any_the_usual_thresholds_are_shown(rest: Rest, alice: Caller) -> None:
    assert rest.get("risk-policy") == {
        "tenant": alice.tenant.pk.hex,
        "flag_at": 75,
        "pause_at": None,
        "cut_at": None,
        "void_at": None,
        "refuse_at": None,
        "unassessable_tier": "L2",
    }
    assert not RiskPolicy.objects.exists()


def test_set_them(rest: Rest, alice: Caller) -> None:
    answer = rest.call("PUT", "risk-policy", POLICY)
    assert (answer.status_code, answer.json()) == (200, POLICY | {"tenant": alice.tenant.pk.hex})
    assert rest.get("risk-policy") == answer.json()
    event = Event.objects.get(code="risk.policy_changed")
    assert (event.tenant_id, event.actor_id) == (alice.tenant.pk, alice.key.pk)
    assert event.details["after"] == POLICY
    usual: dict[str, Any] = {"flag_at": 75, "pause_at": None, "cut_at": None, "void_at": None, "refuse_at": None}
    usual["unassessable_tier"] = "L2"
    assert event.details["before"] == usual


def test_the_same_again_is_no_event(rest: Rest) -> None:
    rest.call("PUT", "risk-policy", POLICY)
    rest.call("PUT", "risk-policy", POLICY)
    assert Event.objects.filter(code="risk.policy_changed").count() == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"flag_at": 0}, "flag_at"),
        ({"flag_at": 101}, "flag_at"),
        ({"pause_at": "80"}, "pause_at"),
        ({"pause_at": True}, "pause_at"),
        ({"unassessable_tier": "L1"}, "unassessable_tier"),
        ({"void_at": 0}, "void_at"),
        ({"kill_at": 90}, "kill_at"),
    ],
)
def test_refuse_what_is_no_threshold(rest: Rest, changes: dict[str, Any], field: str) -> None:
    assert rest.refused("PUT", "risk-policy", POLICY | changes) == (400, "invalid_input", field)
    assert not RiskPolicy.objects.exists()
    assert not Event.objects.filter(code="risk.policy_changed").exists()


def test_each_threshold_must_be_named(rest: Rest) -> None:
    assert rest.refused("PUT", "risk-policy", {"flag_at": 50}) == (400, "invalid_input", "pause_at")


def test_who_may_only_look_changes_nothing(alice: Caller) -> None:
    reader = Rest(caller(alice.tenant, "rita", ["risk:read"]).secret)
    assert reader.get("risk-policy")["flag_at"] == 75
    assert reader.refused("PUT", "risk-policy", POLICY)[:2] == (403, "forbidden")
    assert reader.refused("POST", "risk-suppressions", soon())[:2] == (403, "forbidden")
    blind = Rest(caller(alice.tenant, "ben", ["sandboxes:read"]).secret)
    for path in ("risk-policy", "risk-suppressions", "verdicts", "risk"):
        assert blind.refused("GET", path)[:2] == (403, "forbidden")


def test_operators_name_the_tenant(olga: Operator, alice: Caller) -> None:
    path = f"risk-policy?tenant_id={alice.tenant.pk}"
    assert olga.refused("PUT", "risk-policy", POLICY) == (400, "invalid_input", "tenant_id")
    assert olga.call("PUT", path, POLICY).status_code == 200
    assert olga.get(path)["pause_at"] == 80


def test_another_tenants_are_out_of_reach(rest: Rest, mallorys_rest: Rest, alice: Caller) -> None:
    rest.call("PUT", "risk-policy", POLICY)
    assert mallorys_rest.get(f"risk-policy?tenant_id={alice.tenant.pk}")["pause_at"] is None


def test_mute_a_rule_and_let_it_count_again(rest: Rest, alice: Caller) -> None:
    made = rest.post("risk-suppressions", soon(), status=201)
    assert (made["rule"], made["note"], made["created_by"]) == ("sh.net.client", "CI", alice.key.pk)
    assert rest.get("risk-suppressions")["items"] == [made]
    event = Event.objects.get(code="risk.suppressed")
    assert (event.object_id, event.details["note"]) == ("sh.net.client", "CI")

    assert rest.call("DELETE", f"risk-suppressions/{made['id']}").status_code == 204
    assert not RiskSuppression.objects.exists()
    assert Event.objects.get(code="risk.unsuppressed").object_id == "sh.net.client"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"until": "2020-01-01T00:00:00Z"}, "until"),
        ({"until": "2999-01-01T00:00:00Z"}, "until"),
        ({"until": "soon"}, "until"),
        ({"note": " "}, "note"),
        ({"rule": ""}, "rule"),
        ({"rule": "r" * 65}, "rule"),
    ],
)
def test_refuse_what_mutes_nothing(rest: Rest, changes: dict[str, Any], field: str) -> None:
    assert rest.refused("POST", "risk-suppressions", soon(**changes)) == (400, "invalid_input", field)
    assert not RiskSuppression.objects.exists()


@pytest.mark.parametrize("other", ["0", "x", "9" * 30])
def test_what_is_not_muted_can_not_be_let_count(rest: Rest, other: str) -> None:
    assert rest.refused("DELETE", f"risk-suppressions/{other}")[:2] == (404, "not_found")


def test_the_levels_are_shown_as_they_count_now(rest: Rest, alice: Caller, mallory: Caller) -> None:
    now = clock.now()
    shown = {"peak": 90, "rules": ["sh.rule"], "updated_at": now - timedelta(minutes=10)}
    for tenant, sandbox in ((alice.tenant, "i1"), (mallory.tenant, "i2")):
        RiskLevel.objects.create(kind="sandbox", subject_id=sandbox, tenant_id=tenant.pk, score=80, **shown)
    found = rest.get("risk")
    assert found["tenants"] == []
    (level,) = found["sandboxes"]
    assert (level["id"], level["score"], level["band"], level["peak"]) == ("i1", 40, "medium", 90)
    assert level["rules"] == ["sh.rule"]


def test_a_sandbox_shows_its_own(rest: Rest, alice: Caller, node: NodeDouble, base: Template) -> None:
    sandbox_id = alice.create()["sandboxID"]
    assert rest.get(f"sandboxes/{sandbox_id}")["risk"] is None
    RiskLevel.objects.create(
        kind="sandbox", subject_id=sandbox_id, tenant_id=alice.tenant.pk, score=60, peak=70, rules=["sh.rule"]
    )
    found = rest.get(f"sandboxes/{sandbox_id}")["risk"]
    assert (found["score"], found["band"], found["peak"], found["rules"]) == (60, "high", 70, ["sh.rule"])
