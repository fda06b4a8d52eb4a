"""The node's events become audit rows: none is lost, none is doubled, and none is believed about someone else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit import recording
from audit.models import Event
from corekit import clock
from sandboxes import events, node_client
from sandboxes.errors import NodeRefused
from sandboxes.models import Node, Sandbox
from tests.sandboxes.fixtures import at_once, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def collect() -> int:
    """Collect once."""
    return events.collect(node_client.local_node())


def test_it_collects_and_acknowledges(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    sent = node.emit(
        "command.start",
        node.guests[sandbox_id],
        phase="intent",
        key_id=alice.key.pk,
        origin="192.0.2.9",
        tool_name="exec_code",
        args_hash="ab" * 32,
        risk_score=30,
        risk_reasons=["executes code"],
    )

    assert collect() == 2
    row = Event.objects.get(code="command.start")
    assert (row.pk, row.tenant_id, row.object_id) == (sent["id"], alice.tenant.pk, sandbox_id)
    assert (row.actor_id, row.origin, row.risk_score) == (alice.key.pk, "192.0.2.9", 30)
    assert (node.acked, Node.objects.get().events_upto) == (2, 2)
    assert collect() == 0
    assert node.count()["ack"] == 1


def test_a_quarantined_start_is_told_from_one_that_failed(node: NodeDouble, base: Template, alice: Caller) -> None:
    node.fail("start", "quarantine")
    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"}, **{"Idempotency-Key": "k-1"})
    assert answer.status_code == 500
    assert "seccomp" not in answer.content.decode()

    collect()

    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason, row.idempotency_key, used(alice.tenant)) == ("ended", "quarantined", None, 0)
    found = Event.objects.get(code="sandbox.quarantined")
    assert (found.object_id, found.tenant_id) == (row.pk, alice.tenant.pk)
    assert found.details == {"mismatches": ["seccomp mode: …"]}


def test_an_end_ends_the_row_and_frees_the_quota(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.end(sandbox_id, "expired")
    at = node.events[-1]["at"]

    collect()

    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason, row.ended_at) == ("ended", "expired", clock.from_ms(at))
    assert used(alice.tenant) == 0
    assert Event.objects.get(code="sandbox.ended").tenant_id == alice.tenant.pk
    assert sandbox_id not in node.guests


def test_what_is_delivered_twice_is_stored_once(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    alice.create()
    node.end(sandbox_id, "expired")
    node.fail("ack", "refuse")
    with pytest.raises(NodeRefused):
        collect()
    Node.objects.update(events_upto=0)

    collect()
    assert Event.objects.filter(node_id=node.node_id).count() == 3
    assert used(alice.tenant) == 1


def test_an_acknowledgement_that_was_lost_is_repeated_by_the_next_process(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    alice.create()
    collect()
    node.acked = 0
    events.forget_acknowledged()

    assert collect() == 0
    assert node.acked == 1


def test_nothing_is_acknowledged_before_it_is_committed(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.create()

    def fail(_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recording, "record_node_events", fail)
        with pytest.raises(KeyboardInterrupt):
            collect()
    assert (node.acked, Node.objects.get().events_upto) == (0, 0)

    assert collect() == 1
    assert node.acked == 1


def test_the_tenant_is_what_our_row_says(node: NodeDouble, base: Template, alice: Caller, mallory: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.emit("file.read", node.guests[sandbox_id], tenant=mallory.tenant.pk.hex)

    collect()

    assert Event.objects.get(code="file.read").tenant_id == alice.tenant.pk


def test_a_sandbox_of_another_node_is_not_believed(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    elsewhere = Node.objects.create(id="elsewhere", last_seen_at=clock.from_ms(0))
    Sandbox.everywhere().update(node=elsewhere)
    node.end(sandbox_id, "killed")

    collect()

    assert Sandbox.everywhere().get().state == "running"
    assert set(Event.objects.filter(node_id=node.node_id).values_list("tenant_id", flat=True)) == {None}


def test_an_end_of_an_older_generation_ends_nothing(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.emit("sandbox.ended", node.guests[sandbox_id], generation=0, details={"reason": "killed"})

    collect()

    assert Sandbox.everywhere().get().state == "running"


@pytest.mark.parametrize(
    "broken",
    [
        {"id": "short"},
        {"code": None},
        {"at": "yesterday"},
        {"details": [1]},
        {"risk_score": 1000},
        {"outcome": "perhaps"},
        {"sandbox": {"a": 1}},
        {"sandbox": None, "tenant": None},
        {"generation": "1"},
        {"details": {"reason": "unheard_of"}},
        {"details": None, "at": None},
    ],
    ids=str,
)
def test_a_strange_event_holds_up_nothing(
    node: NodeDouble, base: Template, alice: Caller, broken: dict[str, Any]
) -> None:
    first, second = alice.create()["sandboxID"], alice.create()["sandboxID"]
    node.emit("sandbox.ended", node.guests[first], **({"details": {"reason": "killed"}} | broken))
    node.end(second, "expired")

    collect()

    assert Sandbox.everywhere().get(pk=second).end_reason == "expired"
    assert node.acked == 4
    assert Event.objects.filter(code__in=["spool.malformed", "sandbox.ended"]).count() == 2


def test_a_spool_that_began_anew_is_read_from_its_start(node: NodeDouble, base: Template, alice: Caller) -> None:
    for _ in range(3):
        alice.create()
    collect()
    sandbox_id = node.running()[0].id
    node.events, node.seq, node.acked = [], 0, 0
    node.end(sandbox_id, "expired")

    assert collect() == 1
    assert Sandbox.everywhere().get(pk=sandbox_id).end_reason == "expired"


def test_a_new_node_is_registered_and_read_from_its_start(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    collect()
    node.node_id = "another"
    node.events, node.seq, node.acked = [], 0, 0
    node.emit("spool.overflow", None)

    assert collect() == 1
    assert Node.objects.get(pk="another").events_upto == 1


def test_a_long_spool_is_taken_in_batches(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BATCH", 10)
    sandbox_id = alice.create()["sandboxID"]
    for _ in range(25):
        node.emit("file.read", node.guests[sandbox_id])

    assert collect() == 26
    assert node.count()["events"] == 3
    assert node.acked == 26


@pytest.mark.django_db(transaction=True)
def test_many_collectors_store_each_event_once(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    alice.create()
    for _ in range(50):
        node.emit("file.read", node.guests[sandbox_id])
    node.end(sandbox_id, "expired")

    at_once(6, lambda _: collect(), threads=6)

    assert Event.objects.filter(node_id=node.node_id).count() == 53
    assert used(alice.tenant) == 1
    assert node.acked == 53
