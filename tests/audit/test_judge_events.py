"""Scores add up to levels that fade, and thresholds lead to verdicts, in the transaction of their events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction

from audit import judging
from audit.models import Event, RiskLevel, RiskPolicy, RiskSuppression, Verdict
from audit.recording import record, record_node_events
from audit.risk.findings import band_of
from corekit import clock, ids

if TYPE_CHECKING:
    from tenants.models import Tenant
    from tests.people import Person


def act(score: int, *, sandbox: str = "i1", **changes: Any) -> dict[str, Any]:
    """Return an intent as the node delivers it, whose score comes from one rule."""
    rule = {"rule": f"sh.rule{score}", "title": "A rule", "kind": "capability", "tier": "L2", "weight": score}
    return {
        "seq": 1,
        "id": ids.new_event_id(),
        "at": 1_767_323_045_678,
        "node_id": "node-1",
        "sandbox": sandbox,
        "generation": 1,
        "code": "command.start",
        "phase": "intent",
        "key_id": "0123456789abcdef",
        "risk_score": score,
        "risk_band": band_of(score),
        "risk_reasons": [rule["rule"]],
        "risk_findings": [rule],
    } | changes


def happen(tenant: Tenant, *acts: dict[str, Any]) -> None:
    record_node_events([(one, tenant.id) for one in acts])


def level(kind: str, subject: str) -> RiskLevel:
    return RiskLevel.objects.get(kind=kind, subject_id=subject)


def policy(tenant: Tenant, **thresholds: int | None) -> None:
    RiskPolicy.objects.create(tenant_id=tenant.id, **thresholds)


def test_a_score_becomes_the_level_of_sandbox_and_tenant(acme: Tenant) -> None:
    happen(acme, act(40))
    found = level("sandbox", "i1")
    assert (found.score, found.peak, found.rules, found.tenant_id) == (40, 40, ["sh.rule40"], acme.id)
    assert level("tenant", acme.id.hex).score == 40


def test_what_is_old_counts_less(acme: Tenant) -> None:
    happen(acme, act(80))
    found = level("sandbox", "i1")
    later = found.updated_at + timedelta(minutes=10)
    assert judging.current_score(found, later) == pytest.approx(found.score / 2)
    of_tenant = level("tenant", acme.id.hex)
    assert judging.current_score(of_tenant, later) == pytest.approx(of_tenant.score, rel=0.01)
    assert judging.current_score(of_tenant, of_tenant.updated_at + timedelta(days=1)) == pytest.approx(40)


def test_risky_acts_add_up_and_harmless_ones_do_not(acme: Tenant) -> None:
    happen(acme, *[act(60, sandbox="i1") for _ in range(3)])
    happen(acme, *[act(10, sandbox="i2") for _ in range(500)])
    assert 70 < level("sandbox", "i1").score < 90
    assert level("sandbox", "i2").score == 10


def test_a_result_counts_no_second_time(acme: Tenant) -> None:
    happen(acme, act(60), act(60, phase="result", ref="a" * 32))
    assert level("sandbox", "i1").score == 60
    assert Verdict.objects.count() == 0


def test_without_thresholds_of_its_own_a_tenant_has_the_usual_ones(acme: Tenant) -> None:
    happen(acme, act(74), act(75))
    (verdict,) = Verdict.objects.all()
    assert (verdict.action, verdict.state, verdict.score, verdict.threshold) == ("flag", "done", 75, 75)
    assert (verdict.sandbox_id, verdict.generation, verdict.reasons) == ("i1", 1, ["sh.rule75"])
    (flagged,) = Event.objects.filter(code="risk.flagged")
    assert (flagged.tenant_id, flagged.object_id, flagged.sandbox_id) == (acme.id, "i1", "i1")
    assert flagged.details == {"score": 75, "threshold": 75, "event": verdict.event_id, "rules": ["sh.rule75"]}


def test_a_threshold_to_pause_leads_to_a_verdict_that_waits(acme: Tenant) -> None:
    policy(acme, flag_at=None, pause_at=60)
    happen(acme, act(59), act(60))
    (verdict,) = Verdict.objects.all()
    assert (verdict.action, verdict.state, verdict.decided_at) == ("pause", "pending", None)
    assert not Event.objects.filter(code="risk.flagged").exists()


def test_none_is_never(acme: Tenant) -> None:
    policy(acme, flag_at=None, pause_at=None)
    happen(acme, act(100))
    assert not Verdict.objects.exists()


def test_an_event_that_comes_again_is_judged_once(acme: Tenant) -> None:
    policy(acme, flag_at=50, pause_at=50)
    again = act(60)
    happen(acme, again, again)
    happen(acme, again)
    assert Verdict.objects.count() == 2
    assert level("sandbox", "i1").score == 60


def test_a_muted_rule_stays_visible_and_counts_nothing(acme: Tenant) -> None:
    policy(acme, flag_at=20, pause_at=50)
    now = clock.now()
    RiskSuppression.objects.create(
        tenant_id=acme.id, rule="sh.rule60", note="known", until=now + timedelta(days=1), created_by="bob"
    )
    other = {"rule": "sh.other", "weight": 30, "tier": "L2", "kind": "capability", "title": "Other"}
    both = act(72, risk_reasons=["sh.rule60", "sh.other"], risk_findings=[act(60)["risk_findings"][0], other])
    happen(acme, both)
    (verdict,) = Verdict.objects.all()
    assert (verdict.action, verdict.score, verdict.reasons) == ("flag", 30, ["sh.other"])
    event = Event.objects.get(pk=both["id"])
    assert (event.risk_score, len(event.risk_findings)) == (72, 2)


def test_a_mute_that_is_over_counts_nothing(acme: Tenant) -> None:
    past = clock.now() - timedelta(seconds=1)
    RiskSuppression.objects.create(tenant_id=acme.id, rule="sh.rule80", note="x", until=past, created_by="bob")
    happen(acme, act(80))
    assert Verdict.objects.get().score == 80


def test_another_tenants_thresholds_do_not_count(acme: Tenant, evil_corp: Tenant) -> None:
    policy(evil_corp, flag_at=1, pause_at=1)
    happen(acme, act(40))
    assert not Verdict.objects.exists()


def test_acts_of_the_control_plane_are_judged_too(bob: Person) -> None:
    record(
        "execution.refused",
        actor=bob.actor,
        object_type="execution",
        object_id="e1",
        tenant_id=bob.tenant.id,
        risk=(90, "It would wipe the disk."),
    )
    assert Verdict.objects.get().action == "flag"
    assert Event.objects.get(code="risk.flagged").object_type == "event"


def test_what_is_rolled_back_was_never_judged(acme: Tenant) -> None:
    def fail() -> None:
        with transaction.atomic():
            happen(acme, act(90))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not Verdict.objects.exists()
    assert not RiskLevel.objects.exists()
