"""The node's internal API: what each call answers to web and worker, and that nobody else is answered at all."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from corekit import __version__
from corekit.clock import epoch_ms
from sandboxes.node import linux
from tests.node import rig
from tests.node.callers import NOBODY, call_as
from tests.node.nodeprocess import call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "0a" * 8
EVENT_FIELDS = {
    *("seq", "id", "at", "node_id", "sandbox", "generation", "tenant", "code", "phase", "ref", "key_id", "origin"),
    *("request_id", "tool_name", "args_hash", "args_shape", "risk_score", "risk_reasons", "outcome", "duration_ms"),
    "details",
    *("tier", "trace_id", "span_id"),
}


def path_of(node: Rig, name: str = "node.sock") -> Path:
    """Return where a door of the node is."""
    return node.home / "run" / name


async def ask(node: Rig, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Make a call as root, as `web` and `worker` make them as themselves."""
    return await call(path_of(node), method, path, body)


async def refusal(node: Rig, method: str, path: str, body: object = None) -> tuple[int, str, Any]:
    """Make a call that is refused; return the status, the code and the field."""
    status, answer = await ask(node, method, path, body)
    assert list(answer) == ["error"]
    assert answer["error"]["message"]
    return status, answer["error"]["code"], answer["error"].get("details", {}).get("field")


async def test_health(clean_node: Rig) -> None:
    await clean_node.start()
    status, answer = await ask(clean_node, "GET", "/v1/health")
    started_at = answer.pop("started_at")
    assert (status, answer) == (
        200,
        {
            "node_id": clean_node.keeper.node_id,
            "boot_id": linux.boot_id(),
            "version": __version__,
            "sandboxes": 1,
        },
    )
    assert epoch_ms() - 600_000 < started_at <= epoch_ms()


async def test_capabilities(clean_node: Rig) -> None:
    status, answer = await ask(clean_node, "GET", "/v1/capabilities")
    assert status == 200
    container = answer["tiers"]["container"]
    assert (container["available"], container["reason"], container["fix"]) == (True, None, None)
    assert re.fullmatch(r"\d+\.\d+.*", container["runtimes"]["crun"])
    assert answer["cgroup_mode"] in ("v1", "v2", "hybrid")
    assert answer["capacity"] == clean_node.keeper.admission.capacity()


async def test_a_sandbox_s_life(clean_node: Rig) -> None:
    clean_node.keeper.acknowledge(clean_node.keeper.spool.last_seq)
    status, started = await ask(clean_node, "POST", "/v1/sandboxes", rig.request("alice"))
    assert (status, started["id"], started["generation"], started["state"]) == (201, "alice", 1, "running")
    assert started["end_at"] == started["started_at"] + 300_000
    row = {**started, "tenant": rig.ACME}
    assert await ask(clean_node, "POST", "/v1/sandboxes", rig.request("alice")) == (201, row)
    status, detail = await ask(clean_node, "GET", "/v1/sandboxes/alice")
    assert detail.pop("network") == {"mode": "none", "version": None}
    assert (status, detail.pop("attestation")["interfaces"], detail) == (200, ["lo"], row)
    assert await ask(clean_node, "GET", "/v1/sandboxes") == (
        200,
        {"node_id": clean_node.keeper.node_id, "boot_id": linux.boot_id(), "sandboxes": [row]},
    )

    assert await ask(clean_node, "DELETE", "/v1/sandboxes/alice?generation=1") == (
        200,
        {"state": "ended", "reason": "killed"},
    )
    status, ended = await ask(clean_node, "GET", "/v1/sandboxes/alice")
    assert started["started_at"] <= ended.pop("ended_at") <= epoch_ms()
    expected = {"id": "alice", "generation": 1, "tenant": rig.ACME, "state": "ended", "reason": "killed"}
    assert (status, ended) == (200, expected)
    assert await ask(clean_node, "DELETE", "/v1/sandboxes/alice?generation=1") == (
        200,
        {"state": "ended", "reason": "killed"},
    )

    last = (await ask(clean_node, "GET", "/v1/events"))[1]["last"]
    assert await ask(clean_node, "POST", "/v1/events/ack", {"upto": last}) == (200, {})
    assert await refusal(clean_node, "GET", "/v1/sandboxes/alice") == (404, "unknown_sandbox", None)
    assert await refusal(clean_node, "DELETE", "/v1/sandboxes/alice?generation=1") == (404, "unknown_sandbox", None)


async def test_a_sandbox_that_is_starting_is_listed(clean_node: Rig) -> None:
    starting = asyncio.create_task(ask(clean_node, "POST", "/v1/sandboxes", rig.request("bob")))
    await rig.eventually(lambda: "bob" in clean_node.keeper.starting)
    rows = (await ask(clean_node, "GET", "/v1/sandboxes"))[1]["sandboxes"]
    row = next(row for row in rows if row["id"] == "bob")
    assert row["state"] in ("starting", "running")
    assert (await ask(clean_node, "GET", "/v1/sandboxes/bob"))[1]["state"] in ("starting", "running")
    assert (await starting)[0] == 201


async def test_a_deadline(clean_node: Rig) -> None:
    sandbox = await clean_node.start("carol", ttl_ms=60_000)
    body = {"generation": 1, "ttl_ms": 120_000, "extend_only": False}
    before = epoch_ms()
    status, answer = await ask(clean_node, "POST", "/v1/sandboxes/carol/deadline", body)
    assert (status, list(answer)) == (200, ["end_at"])
    assert before + 120_000 <= answer["end_at"] <= epoch_ms() + 120_000
    assert await ask(
        clean_node, "POST", "/v1/sandboxes/carol/deadline", {**body, "ttl_ms": 1, "extend_only": True}
    ) == (
        200,
        answer,
    )
    assert sandbox.end_at == answer["end_at"]


async def test_grants(clean_node: Rig) -> None:
    first, second = await clean_node.start("dave"), await clean_node.start("erin", grants={KEY: None})
    body = {"generation": 1, "expires_at": 1_900_000_000_000}
    assert await ask(clean_node, "PUT", f"/v1/sandboxes/dave/grants/{KEY}", body) == (200, {})
    assert first.spec.grants == {KEY: 1_900_000_000_000}
    assert await ask(clean_node, "DELETE", f"/v1/grants/{KEY}") == (200, {"sandboxes": 2})
    assert await ask(clean_node, "DELETE", f"/v1/grants/{KEY}") == (200, {"sandboxes": 0})
    assert (first.spec.grants, second.spec.grants) == ({}, {})


async def test_metrics(clean_node: Rig) -> None:
    sandbox = await clean_node.start("frank")
    await clean_node.run(sandbox, "head -c 5M /dev/urandom > file; sync -f file")
    status, answer = await ask(clean_node, "GET", "/v1/sandboxes/frank/metrics")
    assert status == 200
    fixed = {"cpu_milli": 2000, "memory_mib": 256, "disk_mib": 64, "oom_kills": 0, "pids_refused": 0}
    assert {name: answer.pop(name) for name in fixed} == fixed
    assert answer.pop("cpu_usec") > 1_000
    assert 1 << 20 < answer.pop("memory_bytes") < 256 << 20
    assert 0 <= answer.pop("memory_cache_bytes") < 256 << 20
    assert 1 <= answer.pop("pids") <= 128
    assert 5 << 20 < answer.pop("disk_used_bytes") < 64 << 20
    assert epoch_ms() - 5_000 < answer.pop("at") <= epoch_ms()
    assert answer == {}


async def test_events_are_read_and_acknowledged(clean_node: Rig) -> None:
    last = clean_node.keeper.spool.last_seq
    await ask(clean_node, "POST", "/v1/events/ack", {"upto": last})
    await clean_node.start("grace")
    await clean_node.keeper.stop("grace", 1)
    status, answer = await ask(clean_node, "GET", f"/v1/events?after={last}&limit=500&wait_ms=0")
    assert (status, answer["node_id"], answer["last"]) == (200, clean_node.keeper.node_id, last + 2)
    assert [event["code"] for event in answer["events"]] == ["sandbox.started", "sandbox.ended"]
    assert [event["seq"] for event in answer["events"]] == [last + 1, last + 2]
    event = answer["events"][0]
    assert set(event) == EVENT_FIELDS
    assert re.fullmatch(r"[0-9a-f]{32}", event["id"])
    few = (await ask(clean_node, "GET", f"/v1/events?after={last}&limit=1"))[1]["events"]
    assert few == answer["events"][:1]
    assert await ask(clean_node, "POST", "/v1/events/ack", {"upto": last + 1}) == (200, {})
    assert (await ask(clean_node, "GET", "/v1/events"))[1]["events"] == answer["events"][1:]


async def test_a_reader_of_events_may_wait_for_the_next(clean_node: Rig) -> None:
    last = clean_node.keeper.spool.last_seq
    waiting = asyncio.create_task(ask(clean_node, "GET", f"/v1/events?after={last}&wait_ms=20000"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await clean_node.start("heidi")
    _status, answer = await asyncio.wait_for(waiting, 5.0)
    assert [event["code"] for event in answer["events"]] == ["sandbox.started"]
    _status, answer = await ask(clean_node, "GET", f"/v1/events?after={answer['last']}&wait_ms=30")
    assert answer["events"] == []


# --- Refusals


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"build": "nothing"}, (404, "build_unknown")),
        ({"tier": "microvm"}, (409, "tier_unavailable")),
        ({"tier": "process"}, (409, "tier_unavailable")),
        ({"resources": {"cpu_milli": 10, "memory_mib": 1_048_576, "disk_mib": 16, "pids": 64}}, (503, "no_room")),
    ],
    ids=["unknown build", "unavailable tier", "unavailable profile", "no room"],
)
async def test_a_start_that_can_not_be(clean_node: Rig, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    status, code, _field = await refusal(clean_node, "POST", "/v1/sandboxes", rig.request("ivan", **changes))
    assert (status, code) == expected
    await clean_node.is_clean()


async def test_a_start_with_another_generation(clean_node: Rig) -> None:
    await clean_node.start("judy")
    request = rig.request("judy", generation=2)
    assert await refusal(clean_node, "POST", "/v1/sandboxes", request) == (409, "generation_conflict", None)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/sandboxes/nobody", None),
        ("DELETE", "/v1/sandboxes/nobody?generation=1", None),
        ("GET", "/v1/sandboxes/nobody/metrics", None),
        ("POST", "/v1/sandboxes/nobody/deadline", {"generation": 1, "ttl_ms": 1}),
        ("PUT", f"/v1/sandboxes/nobody/grants/{KEY}", {"generation": 1, "expires_at": None}),
        ("GET", "/v1/sandboxes/..%2F..%2Fetc", None),
        ("GET", "/v1/sandboxes/a%00b", None),
    ],
)
async def test_an_unknown_sandbox(clean_node: Rig, method: str, path: str, body: object) -> None:
    assert await refusal(clean_node, method, path, body) == (404, "unknown_sandbox", None)


async def test_another_generation_is_left_alone(clean_node: Rig) -> None:
    sandbox = await clean_node.start("kevin", generation=2)
    conflict = (409, "generation_conflict", None)
    path = "/v1/sandboxes/kevin"
    assert await refusal(clean_node, "DELETE", f"{path}?generation=1") == conflict
    assert await refusal(clean_node, "POST", f"{path}/deadline", {"generation": 1, "ttl_ms": 1}) == conflict
    grant = {"generation": 1, "expires_at": None}
    assert await refusal(clean_node, "PUT", f"{path}/grants/{KEY}", grant) == conflict
    assert (sandbox.ending, sandbox.spec.grants) == (None, {})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 100_000], ids=repr)
@pytest.mark.parametrize("path", ["/v1/sandboxes", "/v1/sandboxes/x/deadline", "/v1/events/ack"])
async def test_a_body_that_is_no_object(clean_node: Rig, path: str, body: bytes) -> None:
    assert await refusal(clean_node, "POST", path, body) == (400, "bad_request", "body")


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/v1/sandboxes", rig.request("lea", env={"A": "\ud800"}), "env"),
        ("POST", "/v1/sandboxes", rig.request("../lea"), "id"),
        ("POST", "/v1/sandboxes", rig.request("lea", ttl_ms=10**30), "ttl_ms"),
        ("POST", "/v1/sandboxes/x/deadline", {"ttl_ms": 1}, "generation"),
        ("POST", "/v1/sandboxes/x/deadline", {"generation": True, "ttl_ms": 1}, "generation"),
        ("POST", "/v1/sandboxes/x/deadline", {"generation": 1, "ttl_ms": -1}, "ttl_ms"),
        ("POST", "/v1/sandboxes/x/deadline", {"generation": 1, "ttl_ms": 1.5}, "ttl_ms"),
        ("PUT", f"/v1/sandboxes/x/grants/{KEY}", {"generation": 1, "expires_at": "soon"}, "expires_at"),
        ("PUT", "/v1/sandboxes/x/grants/short", {"generation": 1, "expires_at": None}, "key_id"),
        ("PUT", f"/v1/sandboxes/x/grants/{KEY}", {"expires_at": None}, "generation"),
        ("POST", "/v1/events/ack", {"upto": -1}, "upto"),
        ("POST", "/v1/events/ack", {}, "upto"),
        ("GET", "/v1/events?after=-1", None, "after"),
        ("GET", "/v1/events?after=%C2%B2", None, "after"),
        ("GET", "/v1/events?after=" + "9" * 5_000, None, "after"),
        ("GET", "/v1/events?limit=many", None, "limit"),
        ("GET", "/v1/events?wait_ms=30001", None, "wait_ms"),
        ("DELETE", "/v1/sandboxes/x?generation=one", None, "generation"),
    ],
)
async def test_a_wrong_field_is_named(clean_node: Rig, method: str, path: str, body: object, field: str) -> None:
    assert await refusal(clean_node, method, path, body) == (400, "bad_request", field)


async def test_a_body_that_is_too_large(clean_node: Rig) -> None:
    body = b'{"id": "' + b"x" * (1024 * 1024) + b'"}'
    assert await refusal(clean_node, "POST", "/v1/sandboxes", body) == (413, "too_large", "body")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/nothing", 404), ("PATCH", "/v1/sandboxes", 405), ("GET", "/v1/routes", 404)],
)
async def test_a_call_that_does_not_exist(clean_node: Rig, method: str, path: str, status: int) -> None:
    assert await refusal(clean_node, method, path) == (status, "no_such_call", None)


async def test_a_fault_of_the_node_is_told_without_a_trace(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_after: int, _limit: int) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(clean_node.keeper.spool, "after", broken)
    status, answer = await ask(clean_node, "GET", "/v1/events")
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert "Traceback" not in json.dumps(answer)


# --- Who is answered


@pytest.mark.parametrize("name", ["node.sock", "edge.sock", "tap.sock"])
async def test_doors_are_closed_to_other_users(clean_node: Rig, name: str) -> None:
    assert oct(path_of(clean_node, name).stat().st_mode)[-3:] == "660"
    assert path_of(clean_node, name).stat().st_uid == 0


@pytest.mark.parametrize(("name", "path"), [("node.sock", "/v1/health"), ("edge.sock", "/v1/routes")])
async def test_a_foreign_user_is_cut_off_even_where_the_door_is_open(clean_node: Rig, name: str, path: str) -> None:
    door = path_of(clean_node, name)
    request = f"GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
    door.chmod(0o666)
    try:
        assert await call_as(NOBODY, door, request) == b""
    finally:
        door.chmod(0o660)


async def test_a_foreign_user_changes_nothing(clean_node: Rig) -> None:
    await clean_node.start("mona")
    door = path_of(clean_node)
    door.chmod(0o666)
    try:
        assert await call_as(NOBODY, door, "DELETE /v1/sandboxes/mona HTTP/1.1\r\nHost: node\r\n\r\n") == b""
    finally:
        door.chmod(0o660)
    assert clean_node.keeper.sandboxes["mona"].ending is None


async def test_a_request_cut_in_half_harms_nobody(clean_node: Rig) -> None:
    connections = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    try:
        for connection in connections:
            connection.connect(str(path_of(clean_node)))
            connection.sendall(b"POST /v1/sandboxes HTTP/1.1\r\nHost: node\r\nContent-Length: 100\r\n\r\n{")
        assert (await ask(clean_node, "GET", "/v1/health"))[0] == 200
    finally:
        for connection in connections:
            connection.close()
