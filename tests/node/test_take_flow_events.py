"""Egress is told everything before it serves, and its events are acknowledged once they are on the node's disk."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sandboxes.node import spool as spool_module
from sandboxes.node.errors import BadRequest, EgressUnavailable, StartFailed
from sandboxes.node.events import Past, from_egress
from sandboxes.node.services import EgressService
from tests.node import rig
from tests.node.egress_double import EgressDouble, event, standing_in
from tests.node.rig import document, eventually, open_network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALICE = Past("alice", 1, rig.ACME, "container")
RULE = "api.example:443"


@dataclass
class Line:
    """A node and the double that it speaks to."""

    node: Rig
    egress: EgressDouble

    def flows(self, sandbox: str) -> list[dict[str, Any]]:
        """Return the events of egress that are in the spool."""
        return [one for one in self.node.events(sandbox) if one["code"].startswith("egress.")]

    async def start(self, sandbox: str) -> None:
        """Start a sandbox that has a way out."""
        await self.node.start(sandbox, **open_network(RULE))

    async def taken(self, *events: dict[str, Any]) -> None:
        """Tell of events and return once they are acknowledged."""
        last = self.egress.tell(*events)
        await eventually(lambda: self.egress.acked() == last)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Line]:
    """Return a node whose egress is the double."""
    with pytest.MonkeyPatch.context() as patch, rig.new_home() as home:
        patch.setattr(EgressService, "start", lambda _self: None)
        async with (
            standing_in(home / "run" / "egress.sock") as egress,
            rig.running_node(home, GATEHOUSE_NODE_EGRESS="1") as node,
        ):
            yield Line(node, egress)
            await node.stop_all()


@pytest_asyncio.fixture(loop_scope="module")
async def line(served: Line) -> AsyncIterator[Line]:
    """Return it with nothing told before."""
    await eventually(lambda: served.node.keeper.ways.is_served)
    served.egress.told.clear()
    yield served
    served.egress.refuse = lambda _message: None
    await served.node.stop_all()
    served.node.keeper.acknowledge(served.node.keeper.spool.last_seq)


# --- what egress is told


async def test_a_sandbox_is_told_with_its_listener_and_no_key(line: Line) -> None:
    await line.start("alice")
    (put,) = line.egress.puts("alice")
    del put["n"]
    assert put == {
        "op": "put",
        "id": "alice",
        "generation": 1,
        "tenant": rig.ACME,
        "network": document(RULE),
        "listener": True,
    }


async def test_a_change_is_told_without_one_and_the_end_too(line: Line) -> None:
    await line.start("alice")
    assert await line.node.keeper.set_network("alice", 1, document(version=2), None) == 2
    assert [(put["network"]["version"], put["listener"]) for put in line.egress.puts("alice")] == [
        (1, True),
        (2, False),
    ]
    await line.node.keeper.stop("alice", 1)
    assert line.egress.ops() == ["put", "put", "drop"]


async def test_a_new_connection_begins_with_everything(line: Line) -> None:
    for name in ("alice", "bob"):
        await line.start(name)
    line.egress.told.clear()
    line.egress.hang_up()
    await eventually(lambda: "synced" in line.egress.ops())
    assert line.egress.ops() == ["put", "put", "synced"]
    assert [(put["id"], put["listener"]) for put in line.egress.told[:2]] == [("alice", True), ("bob", True)]


async def test_what_is_no_message_ends_the_connection_and_the_next_one_works(line: Line) -> None:
    before = line.egress.connections
    for garbage in (b"\xff", b"[]", b"null", b'"put"'):
        line.egress.say(garbage)
        before += 1
        await eventually(lambda: line.egress.connections == before and line.node.keeper.ways.is_served)  # noqa: B023
    await line.start("alice")


async def test_answers_to_nothing_are_nothing(line: Line) -> None:
    for nothing in (b"{}", b'{"op":"done","n":99}', b'{"op":"done","n":"1"}', b'{"op":"events","events":{}}'):
        line.egress.say(nothing)
    await line.start("alice")


async def test_what_egress_does_not_take_starts_no_sandbox(line: Line) -> None:
    line.egress.refuse = lambda message: "layers: no" if message["op"] == "put" else None
    with pytest.raises(EgressUnavailable) as refusal:
        await line.start("alice")
    assert refusal.value.message == "Egress does not take the policy: layers: no."
    assert line.node.codes("alice") == ["sandbox.ended"]
    assert "alice" not in line.node.keeper.feed._routes
    assert line.node.keeper.ways.subject("alice", 1) is not None
    await line.node.is_clean()


async def test_a_start_that_fails_meanwhile_leaves_nothing_at_egress(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(_path: str) -> bool:
        await eventually(lambda: line.egress.puts("alice"))
        return False

    monkeypatch.setattr("sandboxes.node.runtimes.prepared.guestclient.answers", silence)
    with pytest.raises(StartFailed):
        await line.start("alice")
    assert line.egress.ops() == ["put", "drop"]
    assert line.node.codes("alice") == ["sandbox.ended"]
    await line.node.is_clean()


async def test_a_policy_that_it_does_not_take_is_not_in_force(line: Line) -> None:
    await line.start("alice")
    line.egress.refuse = lambda message: "no" if message["op"] == "put" else None
    with pytest.raises(EgressUnavailable):
        await line.node.keeper.set_network("alice", 1, document(version=2), None)
    assert line.node.keeper.ways.version("alice") == 1


# --- what it tells


async def test_an_event_gets_the_node_s_own_stamp(line: Line) -> None:
    await line.start("alice")
    sent = event("alice", at=1, tenant="ec" * 16, node_id="x", tier="microvm")
    await line.taken(sent)
    (found,) = line.flows("alice")
    assert {name: found[name] for name in ("tenant", "tier", "node_id")} == {
        "tenant": rig.ACME,
        "tier": "container",
        "node_id": line.node.keeper.node_id,
    }
    assert found["at"] >= line.node.keeper.sandboxes["alice"].started_at
    told = ("id", "code", "phase", "decision", "reason", "outcome", "duration_ms", "details")
    assert {name: found[name] for name in told} == {name: sent[name] for name in told}


async def test_it_is_not_acknowledged_before_it_is_on_disk(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    await line.start("alice")
    await eventually(lambda: line.node.codes("alice") == ["sandbox.started"])
    spool, may_write = line.node.keeper.spool, threading.Event()
    write = spool._write

    def slow_write(entries: Any) -> None:
        may_write.wait(rig.PATIENCE_S)
        write(entries)

    monkeypatch.setattr(spool, "_write", slow_write)
    last = line.egress.tell(event("alice"))
    await eventually(lambda: spool._flushing is not None)
    assert line.egress.acked() == 0
    may_write.set()
    await eventually(lambda: line.egress.acked() == last)
    assert len(line.flows("alice")) == 1


async def test_one_that_is_wrong_is_refused_alone_and_does_not_come_again(line: Line) -> None:
    await line.start("alice")
    await line.taken(
        event("alice", code="sandbox.ended"), event("alice"), event("nobody"), event("alice", generation=2)
    )
    assert [one["code"] for one in line.flows("alice")] == ["egress.denied"]
    assert line.node.codes("nobody") == []


async def test_a_flood_is_taken_in_order_while_policies_change(line: Line) -> None:
    await line.start("alice")
    for _ in range(40):
        last = line.egress.tell(*(event("alice") for _ in range(20)))
    assert await line.node.keeper.set_network("alice", 1, document(version=2), None) == 2
    await eventually(lambda: line.egress.acked() == last)
    acked = [message["upto"] for message in line.egress.told if message["op"] == "acked"]
    assert acked == sorted(acked)
    assert len(line.flows("alice")) == 800


WRONG: dict[str, list[Any]] = {
    "id": [None, "", "x" * 32, "A" * 32, 5],
    "code": [None, "", "egress", "egress.", "sandbox.ended", "code.run", "egress.DENIED", "egress.a.b", 5],
    "phase": [None, "", "intent", "result", 5],
    "decision": ["maybe", 5, []],
    "outcome": ["well", 5],
    "reason": [5, "x" * 201, []],
    "duration_ms": [-1, "1", True, float("nan"), float("inf")],
    "details": [
        *(None, [], "x", {"host": {}}, {"host": ["x"]}, {"host": "x" * 513}, {"x" * 33: 1}, {"Host": 1}, {"": 1}),
        *({"port": 2**60}, {"port": float("nan")}, {"port": float("inf")}),
        {f"name_{chr(97 + number // 26)}{chr(97 + number % 26)}": 1 for number in range(33)},
    ],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
async def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(BadRequest) as refusal:
        from_egress(event("alice", **{name: value}), ALICE, "n")
    assert refusal.value.details["field"] == name


@pytest.mark.parametrize("code", ["secret.injected", "secret.created", "secret.exfil_attempt.x"])
async def test_of_secrets_egress_tells_what_it_saw_and_no_more(code: str) -> None:
    with pytest.raises(BadRequest):
        from_egress(event("alice", code=code), ALICE, "n")


async def test_a_placeholder_elsewhere_is_told(line: Line) -> None:
    await line.start("alice")
    details = {"host": "evil.test", "port": 443, "secret_name": "key", "place": "head"}
    await line.taken(event("alice", code="secret.exfil_attempt", reason="secret_elsewhere", details=details))
    (told,) = (one for one in line.node.events("alice") if one["code"] == "secret.exfil_attempt")
    assert (told["reason"], told["details"], told["risk_score"]) == ("secret_elsewhere", details, None)


async def test_a_secret_that_came_back_has_the_score_that_it_has_at_the_broker(line: Line) -> None:
    await line.start("alice")
    await line.taken(event("alice", code="secret.reflected", details={"service": "api.example", "method": "GET"}))
    (told,) = (one for one in line.node.events("alice") if one["code"] == "secret.reflected")
    assert (told["risk_score"], told["risk_reasons"]) == (90, ["secret.reflected"])


# --- no room


async def test_a_sandbox_without_room_for_events_gets_no_way_out(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SANDBOX_BYTES", 3_000)
    for name in ("alice", "bob"):
        await line.start(name)
    heavy = {"host": "x" * 500, "sni": "x" * 500}
    await line.taken(*(event("alice", details=heavy) for _ in range(4)))
    await eventually(lambda: len(line.egress.puts("alice")) == 2)
    shut = line.egress.puts("alice")[-1]["network"]
    assert (shut["layers"], shut["version"]) == ([], 1)
    await eventually(lambda: line.node.codes("alice").count("spool.overflow") == 1)
    # What was let through is told all the same, and neighbours notice nothing.
    await line.taken(event("alice", code="egress.closed", decision="allow", details=heavy), event("bob", details=heavy))
    assert line.flows("alice")[-1]["code"] == "egress.closed"
    assert (len(line.flows("bob")), len(line.egress.puts("bob"))) == (1, 1)

    line.node.keeper.acknowledge(line.node.keeper.spool.last_seq)
    await eventually(lambda: len(line.egress.puts("alice")) == 3)
    assert line.egress.puts("alice")[-1]["network"] == document(RULE)
