"""A node that dies while it pauses or resumes leaves one truth, which the next node finds and makes real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import freezing
from sandboxes.node.cgroups import Cgroup
from sandboxes.node.events import fact
from tests.node import rig
from tests.node.nodeprocess import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STARTED, PAUSED, RESUMED, ENDED = (f"sandbox.{verb}" for verb in ("started", "paused", "resumed", "ended"))
AT = 1_900_000_000_000


@pytest.fixture
def process(node_home: Path) -> Iterator[NodeProcess]:
    """Return a node that is not started yet; it is gone afterwards."""
    process = NodeProcess(node_home)
    yield process
    process.kill()


def group_of(process: NodeProcess, name: str) -> Cgroup:
    """Return the control group of a sandbox."""
    return rig.parent_group(process.home).group(str(process.state(name)["runtime"]["slot"]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_paused_sandbox_outlives_the_node(process: NodeProcess, number: signal.Signals) -> None:
    await process.start()
    await process.start_sandbox("alice", ttl_ms=1_500)
    await process.run("alice", "echo kept > note; setsid -f sleep 1000")
    _status, paused = await process.call("POST", "/v1/sandboxes/alice/pause", {"generation": 1})
    process.kill(number)
    assert group_of(process, "alice").is_frozen()
    await asyncio.sleep(1.5)  # its deadline passes, and does not count

    await process.start()
    assert (await process.rows())["alice"] == paused
    assert group_of(process, "alice").is_frozen()
    await rig.eventually(lambda: process.state("alice")["unreported"] == [])
    assert [event["code"] for event in await process.events("alice")] == [STARTED, PAUSED]

    await process.call("POST", "/v1/sandboxes/alice/resume", {"generation": 1, "ttl_ms": 60_000})
    assert (await process.run("alice", "cat note; pgrep -xc sleep")).stdout == "kept\n1\n"
    await process.stop_all()
    await rig.eventually(lambda: rig.leftovers(process.home) == {})


async def test_a_paused_sandbox_of_an_earlier_node_can_be_killed(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("bob")
    await process.call("POST", "/v1/sandboxes/bob/pause", {"generation": 1})
    process.kill()
    await process.start()
    assert await process.call("DELETE", "/v1/sandboxes/bob?generation=1") == (
        200,
        {"state": "ended", "reason": "killed"},
    )
    await rig.eventually(lambda: rig.leftovers(process.home) == {})


async def test_a_deadline_that_passed_meanwhile_pauses_at_once(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("carol", ttl_ms=300, on_timeout="pause")
    process.kill()
    await asyncio.sleep(0.3)
    await process.start()
    async with asyncio.timeout(5):
        while len(events := await process.events("carol")) < 2:
            await asyncio.sleep(0.01)
    assert (events[1]["code"], events[1]["details"]) == (PAUSED, {"reason": "expired"})
    assert (await process.rows())["carol"]["state"] == "paused"


@pytest.mark.parametrize(
    ("number", "seed"), [*((signal.SIGKILL, seed) for seed in range(5)), (signal.SIGTERM, 5), (signal.SIGTERM, 6)]
)
async def test_a_node_that_dies_amid_pauses_leaves_one_truth(
    process: NodeProcess, number: signal.Signals, seed: int
) -> None:
    chance = random.Random(seed)
    names = ["dave", "erin", "frank"]
    await process.start()
    await asyncio.gather(*(process.start_sandbox(name) for name in names))
    for _round in range(2):
        calling = [asyncio.create_task(turn_over(process, name, chance.random() * 0.01)) for name in names]
        await asyncio.sleep(chance.random() * 0.04)
        process.kill(number)
        await asyncio.gather(*calling)
        await process.start()
        rows = await process.rows()
        for name in names:
            await is_one_truth(process, name, rows[name])
    for name in names:
        await process.call("POST", f"/v1/sandboxes/{name}/resume", {"generation": 1, "ttl_ms": 60_000})
        assert (await process.run(name, "echo here")).stdout == "here\n"
    await process.stop_all()
    await rig.eventually(lambda: rig.leftovers(process.home) == {})


async def turn_over(process: NodeProcess, name: str, delay_s: float) -> None:
    """Pause and resume a sandbox until the node is gone."""
    await asyncio.sleep(delay_s)
    with contextlib.suppress(OSError):
        while True:
            for verb in ("pause", "resume"):
                await process.call("POST", f"/v1/sandboxes/{name}/{verb}", {"generation": 1, "ttl_ms": 60_000})


async def is_one_truth(process: NodeProcess, name: str, row: dict[str, Any]) -> None:
    """Check that the kernel, the disk, the events and the node's answer agree."""
    is_paused = row["state"] == "paused"
    assert group_of(process, name).is_frozen() == is_paused
    await rig.eventually(lambda: process.state(name)["unreported"] == [])
    assert process.state(name)["paused_at"] == row.get("paused_at")
    changes = [event["code"] for event in await process.events(name)][1:]
    assert changes == [PAUSED, RESUMED] * (len(changes) // 2) + [PAUSED] * is_paused


# --- Each point at which a node can die, tried with nodes in this process.


async def left_behind(home: Path, *, wished: bool, frozen: bool, reported: bool) -> str:
    """Leave a sandbox as a node leaves it that dies; return the id of the event about its last change."""
    async with rig.running_node(home) as first:
        sandbox = await first.start("alice")
        await first.run(sandbox, "setsid -f sleep 1000")
        event = fact(PAUSED if wished else RESUMED, sandbox.spec, first.keeper.node_id)
        if reported:
            await first.keeper.spool.append(event, fact=True)
        await first.hand_over()
    path = home / "node" / "sandboxes" / "alice" / "state.json"
    change = {"paused_at": AT if wished else None, "unreported": [] if reported else [event | {"at": AT}]}
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    sandbox.runtime.cgroup(sandbox.state).freeze(frozen=frozen)
    return str(event["id"])


@pytest.mark.parametrize("reported", [True, False], ids=["reported", "unreported"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "running"])
@pytest.mark.parametrize("wished", [True, False], ids=["to pause", "to run"])
async def test_what_was_wished_for_is_done(node_home: Path, *, wished: bool, frozen: bool, reported: bool) -> None:
    event_id = await left_behind(node_home, wished=wished, frozen=frozen, reported=reported)
    async with rig.running_node(node_home) as second:
        sandbox = second.keeper.sandboxes["alice"]
        assert sandbox.runtime.cgroup(sandbox.state).is_frozen() == wished
        assert sandbox.summary()["state"] == ("paused" if wished else "running")
        assert second.keeper.feed._routes["alice"]["state"] == ("paused" if wished else "running")
        await rig.eventually(lambda: sandbox.unreported == [])
        assert [event["id"] for event in second.events("alice")[1:]] == [event_id]
        await second.keeper.resume("alice", 1, 60_000)
        assert (await second.run(sandbox, "pgrep -xc sleep")).stdout == "1\n"


@pytest.mark.parametrize("reported", [True, False], ids=["reported", "unreported"])
async def test_what_does_not_freeze_any_more_runs(
    node_home: Path, monkeypatch: pytest.MonkeyPatch, *, reported: bool
) -> None:
    await left_behind(node_home, wished=True, frozen=False, reported=reported)
    monkeypatch.setattr(Cgroup, "is_frozen", lambda _group: False)
    monkeypatch.setattr(freezing, "_PATIENCE_S", 0.1)
    async with rig.running_node(node_home) as second:
        sandbox = second.keeper.sandboxes["alice"]
        assert (sandbox.paused_at, second.keeper.feed._routes["alice"]["state"]) == (None, "running")
        assert (await second.run(sandbox, "echo here")).stdout == "here\n"
        await rig.eventually(lambda: sandbox.unreported == [])
        assert second.codes("alice")[1:] == ([PAUSED, RESUMED] if reported else [])


async def test_a_paused_sandbox_that_died_meanwhile_is_lost(node_home: Path) -> None:
    await left_behind(node_home, wished=True, frozen=True, reported=True)
    parent = rig.parent_group(node_home)
    for name in parent.names():
        parent.group(name).kill()
    await rig.eventually(lambda: rig.processes_of(node_home) == [])
    async with rig.running_node(node_home) as second:
        assert second.keeper.ended["alice"]["details"] == {"reason": "lost"}
        await second.is_clean()


@pytest.mark.parametrize(
    "change", [{"paused_at": "soon"}, {"paused_at": []}, {"unreported": 5}, {"end_at": None}], ids=repr
)
async def test_a_state_that_can_not_be_read_is_lost(node_home: Path, change: dict[str, Any]) -> None:
    await left_behind(node_home, wished=True, frozen=True, reported=True)
    path = node_home / "node" / "sandboxes" / "alice" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    async with rig.running_node(node_home) as second:
        assert second.keeper.ended["alice"]["details"] == {"reason": "lost"}
        await second.is_clean()


async def test_a_state_of_before_there_were_pauses_is_read(node_home: Path) -> None:
    async with rig.running_node(node_home) as first:
        await first.start("alice")
        await first.hand_over()
    path = node_home / "node" / "sandboxes" / "alice" / "state.json"
    kept = json.loads(path.read_bytes())
    path.write_text(json.dumps({name: kept[name] for name in ("tier", "started_at", "end_at", "runtime")}))
    async with rig.running_node(node_home) as second:
        assert second.keeper.sandboxes["alice"].summary()["state"] == "running"
