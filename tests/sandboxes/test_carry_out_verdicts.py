"""A sandbox whose act met its tenant's threshold stands still within a second, and says why."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event, RiskPolicy, Verdict
from audit.thresholds import override_verdict
from corekit import clock, ids
from corekit.errors import Conflict
from sandboxes import actions, node_client, tasks, verdicts
from sandboxes import events as collecting
from sandboxes.models import Sandbox
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def guarded(base: Template, alice: Caller) -> str:
    """Return Alice's sandbox; her tenant pauses what scores 80 or more."""
    RiskPolicy.objects.create(tenant_id=alice.tenant.pk, flag_at=None, pause_at=80)
    return str(alice.create()["sandboxID"])


def act(node: NodeDouble, sandbox_id: str, score: int = 90) -> None:
    """Let somebody do something risky."""
    node.emit("command.start", node.guests[sandbox_id], phase="intent", risk_score=score, risk_reasons=["sh.rule"])


def verdict() -> Verdict:
    return Verdict.objects.get()


def events(code: str) -> list[Event]:
    return list(Event.objects.filter(code=code))


def test_it_is_paused_by_the_run_that_brings_the_event(node: NodeDouble, guarded: str, alice: Caller) -> None:
    act(node, guarded)
    tasks.collect_events()
    assert node.guests[guarded].state == "paused"
    row = Sandbox.everywhere().get(pk=guarded)
    assert (row.state, used(alice.tenant)) == ("paused", 0)
    found = verdict()
    assert (found.state, found.decided_by, found.note) == ("done", "system", "")
    (paused,) = events("risk.paused")
    assert (paused.tenant_id, paused.object_id, paused.actor_id) == (alice.tenant.pk, guarded, "system")
    assert paused.details == {"score": 90, "threshold": 80, "event": found.event_id, "rules": ["sh.rule"]}
    (pausing,) = events("sandbox.pausing")
    assert pausing.details == {"reason": "risk"}


def test_what_stays_below_the_threshold_runs_on(node: NodeDouble, guarded: str) -> None:
    act(node, guarded, 79)
    tasks.collect_events()
    assert node.guests[guarded].state == "running"
    assert not Verdict.objects.exists()


def test_many_acts_are_one_pause(node: NodeDouble, guarded: str) -> None:
    for _ in range(5):
        act(node, guarded)
    tasks.collect_events()
    assert [one.state for one in Verdict.objects.all()] == ["done"] * 5
    assert node.count()["pause"] == 1
    assert len(events("risk.paused")) == 1


def test_a_node_that_is_away_is_asked_again(node: NodeDouble, guarded: str) -> None:
    act(node, guarded)
    node.fail("pause", "hang_up", "hang_up")
    tasks.collect_events()
    assert verdict().state == "pending"
    tasks.collect_events()
    tasks.collect_events()
    assert (verdict().state, node.guests[guarded].state) == ("done", "paused")


def test_a_worker_that_died_in_between_leaves_the_event_to_the_next(node: NodeDouble, guarded: str) -> None:
    act(node, guarded)
    collecting.collect(node_client.local_node())
    actions.pause_for_risk(Sandbox.everywhere().get(pk=guarded))
    verdicts.carry_out()
    assert (verdict().state, len(events("risk.paused"))) == ("done", 1)


def test_one_that_is_paused_already_needs_nothing(node: NodeDouble, guarded: str) -> None:
    act(node, guarded)
    actions.pause_sandbox(actor=OPERATOR, sandbox_id=guarded)
    tasks.collect_events()
    assert (verdict().state, verdict().note) == ("done", verdicts.STILL)
    assert events("risk.paused") == []


def test_one_that_has_ended_can_not_be_paused(node: NodeDouble, guarded: str, alice: Caller) -> None:
    act(node, guarded)
    actions.kill_sandbox(actor=OPERATOR, sandbox_id=guarded)
    tasks.collect_events()
    assert (verdict().state, verdict().note) == ("failed", verdicts.ENDED)
    (failed,) = events("risk.pause_failed")
    assert (failed.tenant_id, failed.details["error"]) == (alice.tenant.pk, verdicts.ENDED)


def test_a_node_that_refuses_for_a_minute_ends_it(node: NodeDouble, guarded: str) -> None:
    act(node, guarded)
    for _ in range(2):
        node.refuse("pause", 503, "not_frozen")
    tasks.collect_events()
    assert verdict().state == "pending"
    Verdict.objects.update(created_at=clock.now() - timedelta(seconds=61))
    verdicts.carry_out()
    assert verdict().state == "failed"
    assert len(events("risk.pause_failed")) == 1
    assert Sandbox.everywhere().get(pk=guarded).state == "running"


def test_an_override_comes_first(node: NodeDouble, guarded: str) -> None:
    act(node, guarded)
    node.fail("pause", "hang_up", "hang_up")
    tasks.collect_events()
    override_verdict(actor=OPERATOR, verdict_id=verdict().pk, note="A drill.")
    tasks.collect_events()
    assert (verdict().state, node.guests[guarded].state) == ("overridden", "running")


def test_a_request_does_not_wake_it_and_its_owner_does(node: NodeDouble, guarded: str, alice: Caller) -> None:
    Sandbox.everywhere().filter(pk=guarded).update(auto_resume=True)
    act(node, guarded)
    tasks.collect_events()
    wake: dict[str, Any] = {"actor": OPERATOR, "sandbox_id": guarded, "generation": 1}
    with pytest.raises(Conflict, match="risk"):
        actions.resume_for_traffic(**wake)
    assert node.guests[guarded].state == "paused"
    assert alice.call("POST", f"/v2/sandboxes/{guarded}/connect", {"timeout": 60}).status_code == 201
    assert node.guests[guarded].state == "running"
    actions.resume_for_traffic(**wake)


def test_after_an_override_requests_wake_it_again(node: NodeDouble, guarded: str) -> None:
    Sandbox.everywhere().filter(pk=guarded).update(auto_resume=True)
    act(node, guarded)
    tasks.collect_events()
    override_verdict(actor=OPERATOR, verdict_id=verdict().pk, note="Known tool.")
    actions.resume_for_traffic(actor=OPERATOR, sandbox_id=guarded, generation=1)
    assert node.guests[guarded].state == "running"


def test_a_verdict_over_nothing_is_settled(db: None, alice: Caller) -> None:
    Verdict.objects.create(
        tenant_id=alice.tenant.pk,
        event_id=ids.new_event_id(),
        sandbox_id="igone",
        generation=1,
        action="pause",
        score=90,
        threshold=80,
    )
    assert verdicts.carry_out() == 1
    assert verdict().state == "failed"
