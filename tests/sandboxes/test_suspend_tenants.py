"""A suspended tenant's keys open nothing and its sandboxes stand still, within a second; its data stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from sandboxes import node_client, revocation, tasks
from sandboxes.models import Sandbox
from tenants import actions as tenant_actions
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import caller, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


def suspend(whose: Caller) -> None:
    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=whose.tenant, state="suspended")


def activate(whose: Caller) -> None:
    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=whose.tenant, state="active")


def test_every_grant_is_withdrawn_and_what_runs_is_paused_at_once(
    node: NodeDouble, base: Template, alice: Caller, bob: Caller, mallory: Caller
) -> None:
    mine = [alice.create()["sandboxID"] for _ in range(2)]
    theirs = mallory.create()["sandboxID"]
    bob.call("POST", f"/v2/sandboxes/{mine[0]}/connect", {"timeout": 60})

    suspend(alice)

    assert [(node.guests[one].grants, node.guests[one].state) for one in mine] == [({}, "paused")] * 2
    assert (node.guests[theirs].grants, node.guests[theirs].state) == ({mallory.key.pk: None}, "running")
    assert [who.call("GET", "/v2/sandboxes").status_code for who in (alice, bob, mallory)] == [403, 403, 200]
    assert used(alice.tenant) == 0
    events = Event.objects.filter(code="sandbox.pausing", tenant_id=alice.tenant.pk)
    assert [(event.actor_id, event.details) for event in events] == [("system", {"reason": "tenant_suspended"})] * 2


def test_grants_go_before_any_sandbox_is_paused(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    node.calls.clear()

    suspend(alice)

    assert [path.split("/")[2] for method, path, _ in node.calls if method != "GET"] == ["grants", "sandboxes"]


def test_one_that_can_not_be_paused_keeps_none_of_the_others_running(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    ids = [alice.create()["sandboxID"] for _ in range(3)]
    node.fail("pause", "refuse")

    suspend(alice)

    assert sorted(node.guests[one].state for one in ids) == ["paused", "paused", "running"]
    tasks.collect_events()
    assert {node.guests[one].state for one in ids} == {"paused"}


def test_with_the_node_away_it_is_done_later(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.die()
    suspend(alice)
    assert node.guests[sandbox_id].state == "running"

    node.listen()
    tasks.collect_events()

    assert (node.guests[sandbox_id].grants, node.guests[sandbox_id].state) == ({}, "paused")


def test_a_create_that_crossed_with_it_is_caught_up(node: NodeDouble, base: Template, alice: Caller) -> None:
    def suspend_now(_: dict[str, Any]) -> None:
        node.before_start = None
        suspend(alice)

    node.before_start = suspend_now
    sandbox_id = alice.create()["sandboxID"]
    assert node.guests[sandbox_id].state == "running"

    tasks.collect_events()

    assert (node.guests[sandbox_id].grants, node.guests[sandbox_id].state) == ({}, "paused")


def test_after_the_activation_the_same_tokens_count_again(
    node: NodeDouble, base: Template, alice: Caller, bob: Caller, vera: Caller
) -> None:
    made = alice.create()
    bob.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60})
    gone = caller(alice.tenant, "gone")
    gone.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60})
    suspend(alice)
    tenant_actions.revoke_api_key(actor=OPERATOR, key=gone.key)

    activate(alice)

    assert set(node.guests[made["sandboxID"]].grants) == {alice.key.pk, bob.key.pk}
    assert node.guests[made["sandboxID"]].state == "paused"
    answer = alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {})
    assert (answer.status_code, answer.json()) == (201, made)


def test_with_the_node_away_the_activation_is_told_later_and_once(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    sandbox_id = alice.create()["sandboxID"]
    suspend(alice)
    node.die()
    activate(alice)
    node.listen()

    tasks.collect_events()
    assert set(node.guests[sandbox_id].grants) == {alice.key.pk}
    node.calls.clear()
    tasks.collect_events()
    assert node.count()["grant"] == 0


def test_it_is_repeated_for_a_while_and_then_no_more(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.create()
    suspend(alice)
    client = node_client.local_node()
    assert revocation.repeat_recent(client) == 1

    later = clock.now() + 2 * revocation.OVERLAP
    monkeypatch.setattr(clock, "now", lambda: later)
    revocation.repeat_recent(client)
    later += 2 * revocation.OVERLAP
    assert revocation.repeat_recent(client) == 0


def test_paused_ones_can_not_be_woken(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    suspend(alice)

    assert alice.call("POST", f"/v2/sandboxes/{sandbox_id}/connect", {}).status_code == 403
    assert (node.guests[sandbox_id].state, Sandbox.everywhere().get().state) == ("paused", "paused")


def test_a_tenant_without_sandboxes_is_suspended_too(node: NodeDouble, alice: Caller) -> None:
    suspend(alice)
    activate(alice)

    assert alice.call("GET", "/v2/sandboxes").status_code == 200
