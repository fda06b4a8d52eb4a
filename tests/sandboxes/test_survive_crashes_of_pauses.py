"""Web or the node may die anywhere in a pause or a resume: row, node and counters agree again afterwards."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.errors import Conflict, GatehouseError, NotFound, QuotaExceeded
from sandboxes import actions, endings, events, node_client, pausing, reconcile
from sandboxes.errors import NodeSilent
from sandboxes.models import Sandbox
from sandboxes.states import TABLE, SandboxState
from tenants import actions as tenant_actions
from tenants.models import Reservation
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import at_once, used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.models import Template
    from sandboxes.node_client import NodeClient
    from tenants.models import Tenant
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


class WebDiedError(BaseException):
    """Stands for the end of the process: nothing in the product catches it."""


@contextmanager
def web_dies_in(step: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End web at a step of the product."""

    def die(*_: Any, **__: Any) -> None:
        raise WebDiedError

    with monkeypatch.context() as patched:
        patched.setattr(*step, die)
        with pytest.raises(WebDiedError):
            yield


@contextmanager
def web_dies_after(call: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End web when the node has done what it was asked for."""
    real = getattr(node_client.NodeClient, call)

    def do_and_die(client: NodeClient, *args: Any, **options: Any) -> None:
        real(client, *args, **options)
        raise WebDiedError

    with monkeypatch.context() as patched:
        patched.setattr(node_client.NodeClient, call, do_and_die)
        with pytest.raises(WebDiedError):
            yield


def run() -> None:
    """Let the worker do what it does each second and each ten."""
    client = node_client.local_node()
    events.collect(client)
    reconcile.reconcile(client)


def new(who: Caller, *, paused: bool = False) -> str:
    """Create a sandbox, pause it if wanted, and return its id."""
    made = actions.create_sandbox(actor=who.actor, template="base", timeout_s=60).sandbox
    if paused:
        actions.pause_sandbox(actor=who.actor, sandbox_id=made.pk)
    return made.pk


def pause(who: Caller, sandbox_id: str) -> None:
    actions.pause_sandbox(actor=who.actor, sandbox_id=sandbox_id)


def connect(who: Caller, sandbox_id: str) -> None:
    actions.connect_sandbox(actor=who.actor, sandbox_id=sandbox_id, timeout_s=60)


def assert_settled(node: NodeDouble, tenant: Tenant, sandbox_id: str, state: str) -> None:
    """Row, node and counters say the same."""
    row = Sandbox.everywhere().get(pk=sandbox_id)
    assert (row.state, node.guests[sandbox_id].state) == (state, state)
    assert used(tenant) == (1 if state == "running" else 0)
    reservation = Reservation.everywhere().get(pk=sandbox_id)
    assert reservation.sandboxes == used(tenant)
    assert (row.paused_at is not None) == (state == "paused")


def test_web_dies_before_it_asks_the_node_to_pause(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = new(alice)
    with web_dies_in((pausing, "finish_pause"), monkeypatch):
        pause(alice, sandbox_id)
    assert (Sandbox.everywhere().get().state, node.guests[sandbox_id].state) == ("pausing", "running")

    run()

    assert_settled(node, alice.tenant, sandbox_id, "paused")


def test_web_dies_when_the_node_has_paused(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = new(alice)
    with web_dies_after("pause", monkeypatch):
        pause(alice, sandbox_id)

    run()

    assert_settled(node, alice.tenant, sandbox_id, "paused")


def test_the_next_pause_or_connect_carries_on_where_web_died(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = new(alice)
    with web_dies_in((pausing, "finish_pause"), monkeypatch):
        pause(alice, sandbox_id)
    pause(alice, sandbox_id)
    assert_settled(node, alice.tenant, sandbox_id, "paused")

    with web_dies_in((pausing, "finish_resume"), monkeypatch):
        connect(alice, sandbox_id)
    assert Sandbox.everywhere().get().state == "resuming"
    connect(alice, sandbox_id)
    assert_settled(node, alice.tenant, sandbox_id, "running")

    with web_dies_in((pausing, "finish_pause"), monkeypatch):
        pause(alice, sandbox_id)
    connect(alice, sandbox_id)
    assert_settled(node, alice.tenant, sandbox_id, "running")


def test_web_dies_before_it_asks_the_node_to_resume(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = new(alice, paused=True)
    with web_dies_in((pausing, "finish_resume"), monkeypatch):
        connect(alice, sandbox_id)
    assert (Sandbox.everywhere().get().state, used(alice.tenant)) == ("resuming", 1)

    run()

    assert_settled(node, alice.tenant, sandbox_id, "running")
    row = Sandbox.everywhere().get()
    assert row.end_at is not None
    assert row.resumed_at is not None
    assert 58 < (row.end_at - row.resumed_at).total_seconds() <= 60


def test_web_dies_when_the_node_has_resumed(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = new(alice, paused=True)
    with web_dies_after("resume", monkeypatch):
        connect(alice, sandbox_id)

    run()

    assert_settled(node, alice.tenant, sandbox_id, "running")


@pytest.mark.parametrize("fault", ["act_then_hang_up", "act_then_die", "not_json", "act_then_500", "refuse", "hang_up"])
@pytest.mark.parametrize("call", ["pause", "resume"])
def test_whatever_the_node_does_both_agree_afterwards(
    node: NodeDouble, base: Template, alice: Caller, fault: str, call: str
) -> None:
    sandbox_id = new(alice, paused=call == "resume")
    # An idle connection that is closed is no reason to give up, so the node misbehaves twice. It dies only once.
    node.fail(call, *[fault] * (1 if fault == "act_then_die" else 2))

    with pytest.raises(GatehouseError):
        (pause if call == "pause" else connect)(alice, sandbox_id)
    if fault == "act_then_die":
        node.listen()
    run()
    run()

    row = Sandbox.everywhere().get()
    assert row.state == node.guests[sandbox_id].state in {"running", "paused"}
    assert_settled(node, alice.tenant, sandbox_id, row.state)


def test_an_unknown_outcome_leaves_the_intent(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = new(alice)
    node.fail("pause", "act_then_hang_up", "act_then_hang_up")

    with pytest.raises(NodeSilent):
        pause(alice, sandbox_id)

    assert Sandbox.everywhere().get().state == "pausing"


def test_a_refusal_takes_the_intent_back(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = new(alice, paused=True)
    node.refuse("resume", 503, "no_room")

    with pytest.raises(GatehouseError) as refusal:
        connect(alice, sandbox_id)

    assert refusal.value.code == "sandbox_capacity_unavailable"
    assert_settled(node, alice.tenant, sandbox_id, "paused")


@pytest.mark.parametrize("state", ["pausing", "paused", "resuming"])
def test_a_sandbox_that_ended_meanwhile_ends_here(node: NodeDouble, base: Template, alice: Caller, state: str) -> None:
    sandbox_id = new(alice, paused=True)
    Sandbox.everywhere().update(state=state)
    node.end(sandbox_id, "out_of_memory")

    with pytest.raises((NotFound, Conflict)):
        (pause if state == "pausing" else connect)(alice, sandbox_id)
    run()

    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason, Reservation.everywhere().count()) == ("ended", "out_of_memory", 0)


@pytest.mark.parametrize("state", ["pausing", "paused", "resuming"])
def test_a_reboot_ends_the_paused_ones_too(node: NodeDouble, base: Template, alice: Caller, state: str) -> None:
    sandbox_id = new(alice, paused=True)
    Sandbox.everywhere().update(state=state)
    run()
    node.reboot()
    node.lose(sandbox_id)

    reconcile.reconcile(node_client.local_node())

    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason, used(alice.tenant)) == ("ended", "host_rebooted", 0)
    assert not Reservation.everywhere().exists()


@pytest.mark.parametrize("state", ["pausing", "paused", "resuming"])
def test_one_can_be_killed_half_way(node: NodeDouble, base: Template, alice: Caller, state: str) -> None:
    sandbox_id = new(alice, paused=True)
    Sandbox.everywhere().update(state=state)

    actions.kill_sandbox(actor=alice.actor, sandbox_id=sandbox_id)

    assert (Sandbox.everywhere().get().state, node.guests[sandbox_id].state) == ("ended", "ended")
    assert not Reservation.everywhere().exists()


def test_a_pause_that_comes_upon_a_kill_does_not_take_its_reason(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = new(alice)
    with web_dies_in((endings, "finish_ending"), monkeypatch):
        actions.kill_sandbox(actor=alice.actor, sandbox_id=sandbox_id)
    stale = Sandbox.everywhere().get()
    stale.state = SandboxState.RUNNING
    node.lose(sandbox_id)

    reconcile.settle(node_client.local_node(), stale)

    assert Sandbox.everywhere().values_list("state", "end_reason").get() == ("ended", "killed")


def test_what_the_node_runs_although_it_is_paused_is_paused_again(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    sandbox_id = new(alice, paused=True)
    node.guests[sandbox_id].state = "running"

    run()

    assert_settled(node, alice.tenant, sandbox_id, "paused")


def test_an_old_event_of_a_pause_does_not_move_a_row_that_goes_on(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    sandbox_id = new(alice)
    Sandbox.everywhere().update(auto_pause=True)
    node.guests[sandbox_id].spec["on_timeout"] = "pause"
    node.expire(sandbox_id)
    connect(alice, sandbox_id)

    events.collect(node_client.local_node())

    assert_settled(node, alice.tenant, sandbox_id, "running")
    assert set(Event.objects.filter(code__in=["sandbox.paused", "sandbox.resumed"]).values_list("code", flat=True)) == {
        "sandbox.paused",
        "sandbox.resumed",
    }


def test_an_event_of_another_generation_moves_nothing(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = new(alice)
    guest = node.guests[sandbox_id]
    guest.end_at = 0
    node.emit("sandbox.paused", guest, generation=2, details={"reason": "expired"})
    node.emit("sandbox.paused", guest, details="x")
    node.emit("sandbox.paused", guest, at="soon", details={"reason": "expired"})

    events.collect(node_client.local_node())

    assert Sandbox.everywhere().get().state == "running"


def test_pause_resume_and_kill_at_once_leave_one_truth(node: NodeDouble, base: Template, alice: Caller) -> None:
    tenant_actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_sandboxes=3)
    ids = [new(alice) for _ in range(3)]
    actor = alice.actor

    def act(number: int) -> None:
        sandbox_id = ids[number % 3]
        try:
            if number % 4 == 3:
                reconcile.reconcile(node_client.local_node())
                events.collect(node_client.local_node())
            elif number % 4 == 2:
                actions.connect_sandbox(actor=actor, sandbox_id=sandbox_id, timeout_s=60)
            elif number == 45:
                actions.kill_sandbox(actor=actor, sandbox_id=sandbox_id)
            else:
                actions.pause_sandbox(actor=actor, sandbox_id=sandbox_id)
        except (Conflict, NotFound, QuotaExceeded):
            pass

    at_once(60, act, threads=12)
    run()
    run()

    rows = {row.pk: row.state for row in Sandbox.everywhere().all()}
    assert rows == {guest.id: guest.state for guest in node.guests.values()} | {
        pk: "ended" for pk, state in rows.items() if state == "ended"
    }
    assert set(rows.values()) <= {"running", "paused", "ended"}
    assert used(alice.tenant) == list(rows.values()).count("running")
    assert Reservation.everywhere().count() == 3 - list(rows.values()).count("ended")


def test_the_table_lets_nothing_out_of_the_end_and_everything_into_it() -> None:
    for state in SandboxState:
        assert TABLE.can(state, SandboxState.ENDED) == (state != SandboxState.ENDED)
    assert TABLE.before(SandboxState.PAUSED) == {"running", "pausing", "resuming"}
    assert TABLE.before(SandboxState.RUNNING) == {"starting", "pausing", "resuming"}
