"""The gateway's events are acknowledged once they are on disk; what is wrong is refused alone."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import spool as spool_module
from tests.node import rig
from tests.node.callers import NOBODY, call_as
from tests.node.tapline import connected, event

if TYPE_CHECKING:
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def standing(node: Rig) -> str:
    """Return the id of a sandbox that runs: starting one for each wrong line would take long."""
    running = next(iter(node.keeper.sandboxes.values()), None) or await node.start()
    return running.spec.id


def kept(node: Rig, sandbox: str) -> list[dict[str, Any]]:
    """Return the gateway's events of a sandbox that are in the spool."""
    return [event for event in node.events(sandbox) if not event["code"].startswith("sandbox.")]


async def test_an_intent_is_acknowledged_with_its_number(clean_node: Rig) -> None:
    sandbox = await clean_node.start("alice")
    sent = event("alice")
    async with connected(clean_node) as line:
        answer = await line.tell(sent)
    found = kept(clean_node, "alice")[0]
    assert answer == {"ok": True, "seq": found["seq"]}
    own = {name: found.pop(name) for name in ("seq", "at", "node_id", "tenant", "tier", "ref", "trace_id", "span_id")}
    assert own["at"] >= sandbox.started_at
    assert (own["node_id"], own["tenant"], own["ref"]) == (clean_node.keeper.node_id, rig.ACME, None)
    assert (own["tier"], own["trace_id"], own["span_id"]) == ("container", None, None)
    assert found == sent


async def test_a_gateway_may_tell_more(clean_node: Rig) -> None:
    await clean_node.start("peggy")
    more: dict[str, Any] = {
        "args_size": 17,
        "args_key_id": "2026",
        "user_agent": "python-httpx/0.28",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "reason": None,
        "status": None,
        "decision": "allow",
        "gateway_id": "c" * 32,
        "gateway_seq": 1,
        "risk_band": "medium",
        "risk_tier": "L2",
        "risk_ruleset": "gatehouse-v1:0123456789ab",
        "risk_findings": [{"rule": "sh.net.client", "span": {"line": 1}}],
        "risk_seed": {"score": 30, "reasons": []},
    }
    async with connected(clean_node) as line:
        assert (await line.tell(event("peggy", **more)))["ok"] is True
    found = kept(clean_node, "peggy")[0]
    assert {name: found[name] for name in more} == more


async def test_it_is_not_acknowledged_before_it_is_on_disk(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await clean_node.start("bob")
    await rig.eventually(lambda: clean_node.codes("bob") == ["sandbox.started"])
    spool, may_write = clean_node.keeper.spool, threading.Event()
    write = spool._write

    def slow_write(entries: Any) -> None:
        may_write.wait(rig.PATIENCE_S)
        write(entries)

    monkeypatch.setattr(spool, "_write", slow_write)
    async with connected(clean_node) as line:
        telling = asyncio.create_task(line.tell(event("bob")))
        await asyncio.sleep(0.1)
        assert not telling.done()
        may_write.set()
        assert (await telling)["ok"] is True


async def test_many_lines_at_once_are_all_answered(clean_node: Rig) -> None:
    await clean_node.start("carol")
    async with connected(clean_node) as line:
        for number in range(500):
            line.writer.write(json.dumps({"n": number, "event": event("carol")}).encode() + b"\n")
        answers = [await line.answer() for _ in range(500)]
    assert {answer["n"] for answer in answers} == set(range(500))
    assert all(answer["ok"] for answer in answers)
    assert {answer["seq"] for answer in answers} == {event["seq"] for event in kept(clean_node, "carol")}


async def test_a_result_follows_its_intent(clean_node: Rig) -> None:
    await clean_node.start("dave")
    intent = event("dave")
    async with connected(clean_node) as line:
        await line.tell(intent)
        result = event("dave", phase="result", ref=intent["id"], outcome="ok", duration_ms=12.5)
        assert (await line.tell(result))["ok"] is True
    assert [(found["phase"], found["ref"]) for found in kept(clean_node, "dave")] == [
        ("intent", None),
        ("result", intent["id"]),
    ]


async def test_a_result_may_come_while_the_sandbox_ends_and_after(clean_node: Rig) -> None:
    await clean_node.start("erin")
    async with connected(clean_node) as line:
        stopping = asyncio.create_task(clean_node.keeper.stop("erin", 1))
        await asyncio.sleep(0)
        assert clean_node.keeper.sandboxes["erin"].ending is not None
        assert (await line.tell(event("erin", phase="result")))["ok"] is True
        await stopping
        assert (await line.tell(event("erin", phase="result")))["ok"] is True
        assert await line.tell(event("erin")) == {"ok": False, "code": "unknown_sandbox"}
        clean_node.keeper.acknowledge(clean_node.keeper.spool.last_seq)
        assert await line.tell(event("erin", phase="result")) == {"ok": False, "code": "unknown_sandbox"}


@pytest.mark.parametrize("phase", ["intent", "result", "fact"])
async def test_an_unknown_sandbox_is_refused(clean_node: Rig, phase: str) -> None:
    async with connected(clean_node) as line:
        assert await line.tell(event("nobody", phase=phase)) == {"ok": False, "code": "unknown_sandbox"}
    assert clean_node.events("nobody") == []


@pytest.mark.parametrize("phase", ["intent", "result"])
async def test_another_generation_is_an_unknown_sandbox(clean_node: Rig, phase: str) -> None:
    name = (await clean_node.start(generation=2)).spec.id
    async with connected(clean_node) as line:
        refused = await line.tell(event(name, phase=phase, generation=1))
        assert refused == {"ok": False, "code": "unknown_sandbox"}
        assert (await line.tell(event(name, phase=phase, generation=2)))["ok"] is True


async def test_the_tenant_and_the_time_are_the_node_s_own(clean_node: Rig) -> None:
    await clean_node.start("grace")
    async with connected(clean_node) as line:
        await line.tell(event("grace", tenant=rig.EVIL_CORP, at=1, node_id="elsewhere", seq=99_999))
    found = kept(clean_node, "grace")[0]
    assert (found["tenant"], found["node_id"]) == (rig.ACME, clean_node.keeper.node_id)
    assert found["at"] > 1_700_000_000_000
    assert found["seq"] < 99_999


def nested(levels: int) -> dict[str, Any]:
    """Return an object of so many levels."""
    found: Any = 1
    for level in range(levels):
        found = {"a": found} if level % 2 or level == levels - 1 else [found]
    return dict(found)


WRONG: dict[str, list[Any]] = {
    "id": [None, "", "xyz", "AB" * 16, 5],
    "sandbox": [None, "", "A", "../x", 5, ["heidi"]],
    "code": [
        *(None, "", "Command", "command", "command..start", "command.b.c.d.e", "x" * 5_000, {"a": 1}),
        *("sandbox.ended", "sandbox.paused", "sandbox.quarantined", "limit.memory", "spool.overflow", "node.lost"),
    ],
    "phase": [None, "", "later", 1],
    "key_id": ["x" * 17, 5],
    "origin": ["x" * 65, {}],
    "request_id": ["x" * 129],
    "tool_name": ["x" * 65],
    "args_hash": ["x" * 65],
    "args_shape": ["text", [], 1, nested(17)],
    "risk_score": [-1, 101, 1.5, "40", True],
    "risk_reasons": ["text", ["reason"] * 33, {"a": 1}],
    "outcome": ["fine", 1],
    "duration_ms": [-1, "1", True, float("nan"), float("inf")],
    "args_size": [-1, 1.5, "1", True],
    "args_key_id": ["x" * 17],
    "user_agent": ["x" * 201, 5],
    "trace_id": ["x" * 33],
    "span_id": ["x" * 17],
    "reason": ["x" * 201],
    "status": [-1, "200", True],
    "decision": ["maybe", 1],
    "gateway_id": ["x" * 33],
    "gateway_seq": [-1, "1", True],
    "risk_band": ["purple", 1],
    "risk_tier": ["L4", 1],
    "risk_ruleset": ["x" * 41],
    "risk_findings": ["text", ["text"], [{}] * 21, {"a": 1}, [nested(16)], [{"n": float("nan")}]],
    "risk_seed": ["text", [], nested(17)],
    "details": ["text", [], {"n": float("nan")}, {"n": [float("inf")]}, nested(17), nested(900)],
}


async def test_details_may_have_a_few_levels(node: Rig) -> None:
    async with connected(node) as line:
        assert (await line.tell(event(await standing(node), details=nested(16))))["ok"] is True


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
async def test_a_wrong_field_is_refused(node: Rig, name: str, value: Any) -> None:
    sandbox = await standing(node)
    before = kept(node, sandbox)
    async with connected(node) as line:
        assert await line.tell(event(sandbox) | {name: value}) == {"ok": False, "code": "bad_event"}
        assert (await line.tell(event(sandbox)))["ok"] is True
    assert len(kept(node, sandbox)) == len(before) + 1


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"", b"{", b"nonsense", b"\xff\xfe", b"null", b"[]", b"5", b'"text"', b"{}", b'{"n": 1}', b'{"event": {}}'),
        *(b'{"n": 1, "event": null}', b'{"n": 1, "event": []}', b"[" * 60_000, b'{"n": 1e999, "event": {}}'),
    ],
    ids=lambda line: repr(line[:20]),
)
async def test_a_garbage_line_is_refused_alone(node: Rig, garbage: bytes) -> None:
    sandbox = await standing(node)
    async with connected(node) as line:
        line.writer.write(garbage + b"\n")
        refused = await line.answer()
        assert (refused["ok"], refused["code"]) == (False, "bad_event")
        assert (await line.tell(event(sandbox)))["ok"] is True


async def test_a_line_without_an_end_is_cut_off_and_the_next_connection_works(clean_node: Rig) -> None:
    await clean_node.start("judy")
    async with connected(clean_node) as line:
        line.writer.write(b"x" * 200_000)
        assert await line.is_cut_off()
    async with connected(clean_node) as line:
        assert (await line.tell(event("judy")))["ok"] is True


async def test_a_flood_is_refused_alone_and_told(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SANDBOX_BYTES", 8_000)
    await clean_node.start("kevin")
    await clean_node.start("lea")
    heavy: dict[str, Any] = {"details": {"text": "x" * 3_000}}
    async with connected(clean_node) as line:
        answers = [await line.tell(event("kevin", **heavy)) for _ in range(6)]
        assert [answer["ok"] for answer in answers] == [True, True, False, False, False, False]
        assert answers[-1] == {"ok": False, "code": "spool_full"}
        assert (await line.tell(event("lea", **heavy)))["ok"] is True
        # What was let through may still say how it ended.
        assert (await line.tell(event("kevin", phase="result", **heavy)))["ok"] is True
        await rig.eventually(lambda: clean_node.codes("kevin").count("spool.overflow") == 1)
        assert "spool.overflow" not in clean_node.codes("lea")

        clean_node.keeper.acknowledge(clean_node.keeper.spool.last_seq)
        assert (await line.tell(event("kevin", **heavy)))["ok"] is True


async def test_a_disk_that_takes_nothing_refuses_the_intent(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await clean_node.start("mona")
    await rig.eventually(lambda: clean_node.codes("mona") == ["sandbox.started"])

    def broken(_entries: object) -> None:
        raise OSError(28, "No space left on device")

    async with connected(clean_node) as line:
        with monkeypatch.context() as patch:
            patch.setattr(clean_node.keeper.spool, "_write", broken)
            assert await line.tell(event("mona")) == {"ok": False, "code": "spool_full"}
        assert (await line.tell(event("mona")))["ok"] is True
    assert clean_node.codes("mona") == ["sandbox.started", "command.start"]


async def test_a_gateway_that_goes_away_leaves_its_events(clean_node: Rig) -> None:
    await clean_node.start("nina")
    async with connected(clean_node) as line:
        for number in range(50):
            line.writer.write(json.dumps({"n": number, "event": event("nina")}).encode() + b"\n")
        await line.writer.drain()
    await rig.eventually(lambda: len(kept(clean_node, "nina")) == 50)


async def test_a_foreign_user_is_cut_off(clean_node: Rig) -> None:
    await clean_node.start("olga")
    door = clean_node.home / "run" / "tap.sock"
    door.chmod(0o666)
    try:
        assert await call_as(NOBODY, door, json.dumps({"n": 1, "event": event("olga")}) + "\n") == b""
    finally:
        door.chmod(0o660)
    assert kept(clean_node, "olga") == []
