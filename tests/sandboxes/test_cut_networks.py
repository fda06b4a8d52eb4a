"""A sandbox whose act met its tenant's threshold lets nothing out any more, until that is overridden."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event, RiskPolicy, Verdict
from audit.thresholds import override_verdict
from corekit import clock
from corekit.netrules.policy import Policy
from sandboxes import actions, tasks, verdicts
from sandboxes.models import Sandbox
from sandboxes.networks import Wish
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def guarded(base: Template, alice: Caller) -> str:
    """Return Alice's sandbox; her tenant cuts the network of what scores 80 or more."""
    RiskPolicy.objects.create(tenant_id=alice.tenant.pk, flag_at=None, cut_at=80)
    return str(alice.create()["sandboxID"])


def probe(node: NodeDouble, sandbox_id: str) -> None:
    """Let somebody ask for a metadata service, which scores 85."""
    details = {"host": "169.254.169.254", "port": 80}
    node.emit(
        "egress.denied",
        node.guests[sandbox_id],
        decision="deny",
        reason="metadata",
        outcome="refused",
        details=details,
    )


def document(node: NodeDouble, sandbox_id: str) -> dict[str, Any]:
    told: dict[str, Any] = node.guests[sandbox_id].spec["network"]["document"]
    Policy.parse(told)
    return told


def row(sandbox_id: str) -> Sandbox:
    return Sandbox.everywhere().get(pk=sandbox_id)


def events(code: str) -> list[Event]:
    return list(Event.objects.filter(code=code))


def test_nothing_is_let_out_by_the_run_that_brings_the_event(node: NodeDouble, guarded: str, alice: Caller) -> None:
    probe(node, guarded)

    tasks.collect_events()

    told = document(node, guarded)
    assert (told["version"], told["layers"], told["dns"], told["private"]) == (2, [], False, [])
    found = row(guarded)
    assert (found.state, found.network_cut, found.network_acked) == ("running", True, 2)
    assert node.guests[guarded].state == "running"
    verdict = Verdict.objects.get()
    assert (verdict.action, verdict.state, verdict.decided_by) == ("cut", "done", "system")
    (event,) = events("risk.network_cut")
    assert (event.tenant_id, event.object_id, event.actor_id) == (alice.tenant.pk, guarded, "system")
    assert event.details == {"score": 85, "threshold": 80, "event": verdict.event_id, "rules": ["flow.metadata"]}


def test_many_acts_are_one_cut(node: NodeDouble, guarded: str) -> None:
    for _ in range(3):
        probe(node, guarded)

    tasks.collect_events()
    tasks.tell_networks()

    assert [one.state for one in Verdict.objects.all()] == ["done"] * 3
    assert (node.count()["network"], len(events("risk.network_cut"))) == (1, 1)


def test_what_it_tries_afterwards_is_no_other_cut(node: NodeDouble, guarded: str) -> None:
    for _ in range(2):
        probe(node, guarded)
        tasks.collect_events()

    assert [one.note for one in Verdict.objects.order_by("created_at")] == ["", verdicts.STILL_CUT]
    assert (node.count()["network"], len(events("risk.network_cut"))) == (1, 1)


def test_its_owner_can_not_change_it(node: NodeDouble, guarded: str, alice: Caller) -> None:
    probe(node, guarded)
    tasks.collect_events()

    answer = alice.call("PUT", f"/sandboxes/{guarded}/network", {})

    assert (answer.status_code, answer.json()["message"]) == (409, "The network of the sandbox was cut for its risk.")
    assert document(node, guarded)["layers"] == []
    assert row(guarded).network_version == 2


def test_it_stays_cut_over_a_pause(node: NodeDouble, guarded: str, alice: Caller) -> None:
    probe(node, guarded)
    tasks.collect_events()

    assert alice.call("POST", f"/sandboxes/{guarded}/pause", {}).status_code == 204
    assert alice.call("POST", f"/v2/sandboxes/{guarded}/connect", {"timeout": 60}).status_code == 201
    tasks.tell_networks()

    assert document(node, guarded)["layers"] == []


def test_an_override_gives_it_back(node: NodeDouble, guarded: str) -> None:
    before = document(node, guarded)
    probe(node, guarded)
    tasks.collect_events()

    override_verdict(actor=OPERATOR, verdict_id=Verdict.objects.get().pk, note="A drill.")
    tasks.collect_events()
    tasks.tell_networks()

    assert document(node, guarded) == before | {"version": 3}
    assert (row(guarded).network_cut, row(guarded).network_acked) == (False, 3)
    (event,) = events("sandbox.network_changed")
    assert (event.actor_id, event.details["reason"]) == ("system", "override")
    # The worker writes it, which has no key for arguments.
    assert event.args_hash == ""


def test_an_override_of_one_of_two_gives_nothing_back(node: NodeDouble, guarded: str) -> None:
    for _ in range(2):
        probe(node, guarded)
    tasks.collect_events()

    override_verdict(actor=OPERATOR, verdict_id=Verdict.objects.all()[0].pk, note="A drill.")
    tasks.collect_events()

    assert row(guarded).network_cut is True


@pytest.mark.parametrize("away", ["node", "egress"])
def test_who_is_away_is_told_again(node: NodeDouble, guarded: str, away: str) -> None:
    probe(node, guarded)
    if away == "node":
        node.fail("network", "hang_up", "hang_up")
    else:
        node.refuse("network", 503, "egress_unavailable")

    tasks.collect_events()

    assert (Verdict.objects.get().state, row(guarded).network_cut, row(guarded).network_acked) == ("pending", True, 1)
    node.refusals.clear()
    verdicts.carry_out()
    assert (Verdict.objects.get().state, document(node, guarded)["layers"]) == ("done", [])
    assert len(events("risk.network_cut")) == 1


def test_a_node_that_refuses_for_a_minute_is_told_of_and_goes_on_being_asked(node: NodeDouble, guarded: str) -> None:
    probe(node, guarded)
    node.refuse("network", 500, "broken")
    tasks.collect_events()
    Verdict.objects.update(created_at=clock.now() - timedelta(seconds=61))

    verdicts.carry_out()

    assert (Verdict.objects.get().state, len(events("risk.network_cut_failed"))) == ("failed", 1)
    node.refusals.clear()
    tasks.tell_networks()
    assert (document(node, guarded)["layers"], row(guarded).network_cut) == ([], True)


def test_one_without_a_network_needs_nothing(node: NodeDouble, guarded: str, alice: Caller) -> None:
    made = actions.create_sandbox(actor=alice.actor, template="base", timeout_s=60, network=Wish(policy="isolated"))
    node.emit("command.start", node.guests[made.sandbox.pk], phase="intent", risk_score=90, risk_reasons=["sh.rule"])

    tasks.collect_events()

    assert (Verdict.objects.get().state, Verdict.objects.get().note) == ("done", verdicts.NO_NETWORK)
    assert events("risk.network_cut") == []


def test_one_that_has_ended_can_not_be_cut(node: NodeDouble, guarded: str) -> None:
    probe(node, guarded)
    actions.kill_sandbox(actor=OPERATOR, sandbox_id=guarded)

    tasks.collect_events()

    assert (Verdict.objects.get().state, Verdict.objects.get().note) == ("failed", verdicts.ENDED)
    assert len(events("risk.network_cut_failed")) == 1


def test_what_stays_below_the_threshold_reaches_on(node: NodeDouble, guarded: str) -> None:
    node.emit("command.start", node.guests[guarded], phase="intent", risk_score=79, risk_reasons=["sh.rule"])

    tasks.collect_events()

    assert not Verdict.objects.exists()
    assert row(guarded).network_version == 1
