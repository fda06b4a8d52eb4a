"""Rows and nodes are made to agree, in whatever state both are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from corekit import clock
from gatehouse import queues
from sandboxes import node_client, reconcile, tasks
from sandboxes.models import Node, Sandbox
from sandboxes.states import TABLE, SandboxState
from tests.sandboxes.fixtures import assert_counters_equal_reality, at_once, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def run() -> reconcile.Outcome:
    """Reconcile once."""
    return reconcile.reconcile(node_client.local_node())


def test_what_agrees_is_left_alone(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    before = Sandbox.everywhere().values().get()

    assert run() == reconcile.Outcome()
    assert Sandbox.everywhere().values().get() == before
    assert node.count()["stop"] == 0


def test_the_node_is_registered_and_its_boot_remembered(node: NodeDouble, db: None) -> None:
    run()

    row = Node.objects.get()
    assert (row.pk, row.boot_id, row.version) == (node.node_id, node.boot_id, "0.0.0")
    assert row.capabilities["tiers"]["container"]["available"] is True
    assert Event.objects.get(code="node.registered").object_id == node.node_id
    run()
    assert Event.objects.filter(code="node.registered").count() == 1


def test_what_the_node_says_ended_ends(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.end(sandbox_id, "out_of_memory")

    assert run().ended == 1
    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason) == ("ended", "out_of_memory")
    assert row.ended_at == clock.from_ms(node.guests[sandbox_id].ended_at or 0)
    assert used(alice.tenant) == 0


def test_what_the_node_lost_ends_as_lost(node: NodeDouble, base: Template, alice: Caller) -> None:
    run()
    node.lose(alice.create()["sandboxID"])

    run()
    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason, used(alice.tenant)) == ("ended", "lost", 0)
    assert Event.objects.get(code="sandbox.lost").details == {"reason": "lost", "node": node.node_id}


def test_a_reboot_of_the_host_is_named(node: NodeDouble, base: Template, alice: Caller) -> None:
    run()
    known, forgotten = alice.create()["sandboxID"], alice.create()["sandboxID"]
    node.reboot()
    node.lose(forgotten)

    assert run().ended == 2
    assert dict(Sandbox.everywhere().values_list("id", "end_reason")) == {
        known: "host_rebooted",
        forgotten: "host_rebooted",
    }
    assert used(alice.tenant) == 0
    assert Node.objects.get().boot_id == node.boot_id


def test_a_new_store_on_the_same_host_has_lost_everything(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.node_id = "another"
    node.lose(sandbox_id)

    run()
    assert Sandbox.everywhere().get().end_reason == "lost"
    assert set(Node.objects.values_list("id", flat=True)) == {"node-double", "another"}
    assert Sandbox.everywhere().filter(node="another").count() == 0
    node_id_before = Sandbox.everywhere().get().node_id
    alice.create()
    assert node_id_before == "node-double"


def test_a_sandbox_without_a_row_is_stopped(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.guests["istray"] = node.guests[sandbox_id].__class__(
        id="istray", generation=1, tenant="00" * 16, spec={}, started_at=1, end_at=2
    )

    assert run().stopped == 1
    assert [guest.id for guest in node.running()] == [sandbox_id]


def test_a_sandbox_whose_row_ended_is_stopped(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    Sandbox.everywhere().update(state="ended", ended_at=clock.now())

    assert run().stopped == 1
    assert node.running() == []


def test_an_older_generation_is_stopped_and_the_row_ends(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    Sandbox.everywhere().update(generation=2)

    outcome = run()
    assert (outcome.ended, outcome.stopped) == (1, 1)
    assert Sandbox.everywhere().get().end_reason == "lost"
    assert node.running() == []


def test_a_create_under_way_is_left_alone(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    alice.create()
    first, second = Sandbox.everywhere().order_by("created_at")
    Sandbox.everywhere().update(state="starting", end_at=None)
    node.lose(first.pk)

    assert run() == reconcile.Outcome()
    assert set(Sandbox.everywhere().values_list("state", flat=True)) == {"starting"}
    assert [guest.id for guest in node.running()] == [second.pk]


def test_the_end_follows_the_node(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.guests[sandbox_id].end_at += 5000

    assert run().adjusted == 1
    assert Sandbox.everywhere().get().end_at == clock.from_ms(node.guests[sandbox_id].end_at)


def test_a_stop_that_fails_is_tried_again(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    Sandbox.everywhere().update(state="ending", end_reason="killed")
    node.fail("stop", "refuse")

    assert run().ended == 0
    assert Sandbox.everywhere().get().state == "ending"
    assert run().ended == 1
    assert Sandbox.everywhere().get().state == "ended"


def test_with_the_node_away_nothing_changes(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    node.die()

    tasks.reconcile()
    tasks.collect_events()

    assert Sandbox.everywhere().get().state == "running"
    assert used(alice.tenant) == 1


def test_a_refused_quota_first_asks_the_node_what_ended(node: NodeDouble, base: Template, alice: Caller) -> None:
    from tenants import actions as tenant_actions
    from tests.factories import OPERATOR

    tenant_actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_sandboxes=1)
    first = alice.create()["sandboxID"]
    node.end(first, "expired")

    second = alice.create()["sandboxID"]

    assert dict(Sandbox.everywhere().values_list("id", "end_reason")) == {first: "expired", second: ""}
    assert not Event.objects.filter(code="quota.refused").exists()
    assert alice.call("POST", "/v2/sandboxes", {"templateID": "base"}).status_code == 429


def test_leaked_reservations_are_swept_and_live_ones_kept(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenants import quota

    alice.create()
    quota.reserve(tenant_id=alice.tenant.pk, sandbox_id="ileaked", amounts=quota.Amounts(cpu_milli=500))
    tasks.sweep_reservations()
    assert used(alice.tenant) == 2

    monkeypatch.setattr(tasks, "LEAK_AGE_S", -1)
    tasks.sweep_reservations()
    assert used(alice.tenant) == 1
    assert_counters_equal_reality(alice.tenant, node)


def test_the_worker_runs_these_tasks() -> None:
    known = (
        *(tasks.collect_events, tasks.tell_networks, tasks.reconcile, tasks.sweep_reservations),
        tasks.erase_tenants,
    )
    names = {task.name for task in known}

    assert names == {name for name in queues.PERIODIC if name.startswith("sandboxes.")}


def test_every_state_can_be_left_and_leads_to_the_end() -> None:
    for state in TABLE.states - TABLE.terminal:
        assert TABLE.can(state, SandboxState.ENDED), state
    assert not any(TABLE.can(SandboxState.ENDED, state) for state in TABLE.states)
    assert not TABLE.can(SandboxState.ENDING, SandboxState.RUNNING)


@pytest.mark.django_db(transaction=True)
def test_many_at_once_do_no_harm(node: NodeDouble, base: Template, alice: Caller) -> None:
    ids = [alice.create()["sandboxID"] for _ in range(6)]
    node.end(ids[0], "expired")
    node.lose(ids[1])
    Sandbox.everywhere().filter(pk=ids[2]).update(state="ending", end_reason="killed")
    node.guests["istray"] = node.guests[ids[3]].__class__(
        id="istray", generation=1, tenant="00" * 16, spec={}, started_at=1, end_at=2
    )

    at_once(8, lambda _: (tasks.reconcile(), tasks.collect_events(), tasks.sweep_reservations()), threads=8)

    assert sorted(guest.id for guest in node.running()) == sorted(ids[3:])
    assert_counters_equal_reality(alice.tenant, node)
    assert Event.objects.filter(code="sandbox.lost").count() == 1
    assert Event.objects.filter(code="sandbox.ended", object_id=ids[0]).count() == 1
