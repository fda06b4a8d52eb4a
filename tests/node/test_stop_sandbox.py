"""Stopping a sandbox returns when no process of it is left, and everything else of it is gone soon after."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from sandboxes.node.errors import GenerationConflict, UnknownSandbox
from tests.node import rig

if TYPE_CHECKING:
    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Each leaves at least one process behind that its shell no longer knows.
SURVIVORS = {
    "daemon": "nohup sleep 1000 >/dev/null 2>&1 & disown",
    "setsid": "setsid -f sleep 1000",
    "double fork": "python3 -c 'import os, time\nos.fork() or os.fork() or time.sleep(1000)'",
    "stopped": "setsid -f sleep 1000; pkill -STOP sleep",
    "deaf": "setsid -f bash -c 'trap \"\" TERM HUP INT QUIT; while :; do sleep 1000; done'",
    "many": "for n in $(seq 60); do setsid -f sleep 1000; done",
}
FORK_BOMB = "setsid -f bash -c 'bomb() { bomb | bomb & }; while :; do bomb; done' >/dev/null 2>&1"


async def stopped(node: Rig, sandbox: Sandbox) -> str:
    """Stop a sandbox; when that returns, no process of it lives. Return the reason of its end."""
    pids = node.pids(sandbox)
    assert pids
    reason = await node.keeper.stop(sandbox.spec.id, 1)
    assert [pid for pid in pids if rig.is_alive(pid)] == []
    assert rig.processes_of(node.home) == []
    return reason


async def test_it_returns_when_it_is_really_gone(clean_node: Rig) -> None:
    sandbox = await clean_node.start("alice")
    assert await stopped(clean_node, sandbox) == "killed"
    assert clean_node.keeper.sandboxes == {}
    await clean_node.is_clean()


async def test_its_end_is_reported_with_what_it_used(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    await clean_node.run(sandbox, "for n in $(seq 20000); do :; done")
    await stopped(clean_node, sandbox)
    assert clean_node.codes(sandbox.spec.id) == ["sandbox.started", "sandbox.ended"]
    details = clean_node.events(sandbox.spec.id)[-1]["details"]
    assert (details["reason"], details["oom_kills"]) == ("killed", 0)
    assert 1_000 < details["cpu_usec"] < 60_000_000


@pytest.mark.parametrize("kind", SURVIVORS)
async def test_no_process_can_stay(clean_node: Rig, kind: str) -> None:
    sandbox = await clean_node.start()
    before = len(clean_node.pids(sandbox))
    await clean_node.run(sandbox, SURVIVORS[kind])
    assert len(clean_node.pids(sandbox)) > before
    assert await stopped(clean_node, sandbox) == "killed"


async def test_a_fork_bomb_is_stopped_within_two_seconds(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    await clean_node.run(sandbox, FORK_BOMB)
    await rig.eventually(lambda: sandbox.runtime.stats(sandbox.state).pids > 60)
    async with asyncio.timeout(2.0):
        assert await clean_node.keeper.stop(sandbox.spec.id, 1) == "killed"
    assert rig.processes_of(clean_node.home) == []


async def test_nothing_of_a_root_user_can_stay(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    await clean_node.run(sandbox, "setsid -f sleep 1000; kill -KILL 1; echo 0 > /proc/1/oom_score_adj", user="root")
    assert await stopped(clean_node, sandbox) == "killed"


async def test_a_frozen_sandbox_is_stopped_too(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    sandbox.runtime.cgroup(sandbox.state).freeze(frozen=True)
    assert await stopped(clean_node, sandbox) == "killed"


async def test_no_zombie_is_left(clean_node: Rig) -> None:
    before = rig.children_of(os.getpid())
    for _ in range(3):
        await stopped(clean_node, await clean_node.start())
    await clean_node.is_clean()
    assert set(rig.children_of(os.getpid())) <= set(before)


async def test_no_descriptor_is_left(clean_node: Rig) -> None:
    await stopped(clean_node, await clean_node.start())
    await clean_node.is_clean()
    before = rig.open_descriptors()
    for _ in range(3):
        await stopped(clean_node, await clean_node.start())
    await clean_node.is_clean()
    assert rig.open_descriptors() <= before


async def test_stopping_again_gives_the_same_answer(clean_node: Rig) -> None:
    sandbox = await clean_node.start("bob")
    reasons = await asyncio.gather(*(clean_node.keeper.stop("bob", 1) for _ in range(5)))
    assert reasons == ["killed"] * 5
    assert await clean_node.keeper.stop("bob", 1) == "killed"
    assert clean_node.codes("bob") == ["sandbox.started", "sandbox.ended"]
    assert sandbox.spec.id not in clean_node.keeper.sandboxes


async def test_a_caller_who_goes_away_does_not_stop_the_end(clean_node: Rig) -> None:
    await clean_node.start("carol")
    caller = asyncio.create_task(clean_node.keeper.stop("carol", 1))
    await asyncio.sleep(0)
    caller.cancel()
    await rig.eventually(lambda: "carol" in clean_node.keeper.ended)
    await clean_node.is_clean()


async def test_a_sandbox_that_is_starting_is_stopped_when_it_has_started(clean_node: Rig) -> None:
    starting = asyncio.create_task(clean_node.start("dave"))
    await asyncio.sleep(0.005)
    assert await clean_node.keeper.stop("dave", 1) == "killed"
    assert (await starting).spec.id == "dave"
    assert clean_node.keeper.sandboxes == {}


async def test_an_acknowledged_end_is_forgotten(clean_node: Rig) -> None:
    await clean_node.start("erin")
    await clean_node.keeper.stop("erin", 1)
    clean_node.keeper.acknowledge(clean_node.keeper.spool.last_seq)
    with pytest.raises(UnknownSandbox):
        await clean_node.keeper.stop("erin", 1)


async def test_an_unknown_sandbox_is_refused(clean_node: Rig) -> None:
    with pytest.raises(UnknownSandbox) as refusal:
        await clean_node.keeper.stop("nobody", 1)
    assert (refusal.value.status, refusal.value.details) == (404, {"id": "nobody"})


async def test_another_generation_is_not_touched(clean_node: Rig) -> None:
    sandbox = await clean_node.start("frank", generation=2)
    with pytest.raises(GenerationConflict) as refusal:
        await clean_node.keeper.stop("frank", 1)
    assert refusal.value.status == 409
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"
    assert await clean_node.keeper.stop("frank", 2) == "killed"
    with pytest.raises(UnknownSandbox):
        await clean_node.keeper.stop("frank", 1)


async def test_a_guest_that_ends_by_itself_ends_the_sandbox(clean_node: Rig) -> None:
    sandbox = await clean_node.start("grace")
    await clean_node.run(sandbox, "setsid -f sleep 1000")
    os.kill(sandbox.state["pid"], 9)
    await rig.eventually(lambda: "grace" in clean_node.keeper.ended)
    assert clean_node.keeper.ended["grace"]["details"]["reason"] == "guest_exited"
    assert rig.processes_of(clean_node.home) == []
    await clean_node.is_clean()


async def test_its_slot_rests_before_it_is_used_again(clean_node: Rig) -> None:
    first = await clean_node.start()
    await stopped(clean_node, first)
    second = await clean_node.start()
    assert second.state["slot"] == first.state["slot"] + 1


async def test_an_end_that_the_disk_refuses_is_reported_later(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await clean_node.start("heidi")
    await rig.eventually(lambda: clean_node.codes("heidi") == ["sandbox.started"])
    monkeypatch.setattr("sandboxes.node.keeper._REPORT_AGAIN_S", 0.02)
    with monkeypatch.context() as patch:
        patch.setattr(clean_node.keeper.spool, "_write", _broken_disk)
        stopping = asyncio.create_task(clean_node.keeper.stop("heidi", 1))
        disk = clean_node.node.maker.directory(sandbox.state["slot"]) / "disk.img"
        await rig.eventually(lambda: not disk.exists())
        assert not stopping.done()
    assert await stopping == "killed"
    assert clean_node.codes("heidi") == ["sandbox.started", "sandbox.ended"]
    await clean_node.is_clean()


async def test_an_end_fits_into_a_full_spool(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxes.node.spool._TOTAL_BYTES", 1)
    await clean_node.start("ivan")
    assert await clean_node.keeper.stop("ivan", 1) == "killed"
    assert clean_node.codes("ivan") == ["sandbox.started", "sandbox.ended"]


def _broken_disk(_entries: object) -> None:
    raise OSError(28, "No space left on device")
