"""A sandbox ends at its deadline, within a second, whoever is away; the deadline can be moved."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from corekit.clock import epoch_ms
from sandboxes.node.errors import GenerationConflict, UnknownSandbox
from tests.node import rig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ended_at(node: Rig, sandbox_id: str) -> int:
    """Wait for the end of a sandbox, which must be its deadline's doing, and return when it came (ms)."""
    await rig.eventually(lambda: sandbox_id in node.keeper.ended)
    event = node.keeper.ended[sandbox_id]
    assert event["details"]["reason"] == "expired"
    assert rig.processes_of(node.home) == []
    return int(event["at"])


async def test_it_ends_within_a_second_of_its_deadline(clean_node: Rig) -> None:
    sandbox = await clean_node.start("alice", ttl_ms=300)
    late = await ended_at(clean_node, "alice") - sandbox.end_at
    assert 0 <= late < 1_000
    assert clean_node.codes("alice") == ["sandbox.started", "sandbox.ended"]
    await clean_node.is_clean()


async def test_its_time_begins_when_it_is_ready(clean_node: Rig) -> None:
    asked = epoch_ms()
    sandbox = await clean_node.start("bob", ttl_ms=400)
    assert sandbox.started_at > asked
    assert sandbox.end_at == sandbox.started_at + 400
    assert await ended_at(clean_node, "bob") >= sandbox.end_at


async def test_no_time_at_all_ends_it_at_once(clean_node: Rig) -> None:
    sandbox = await clean_node.start("carol", ttl_ms=0)
    assert sandbox.end_at == sandbox.started_at
    assert await ended_at(clean_node, "carol") - sandbox.started_at < 1_000
    assert clean_node.codes("carol") == ["sandbox.started", "sandbox.ended"]


async def test_its_deadline_can_be_put_off(clean_node: Rig) -> None:
    sandbox = await clean_node.start("dave", ttl_ms=300)
    before = epoch_ms()
    end_at = clean_node.keeper.set_deadline("dave", 1, 60_000, extend_only=False)
    assert before + 60_000 <= end_at <= epoch_ms() + 60_000
    assert (sandbox.end_at, sandbox.summary()["end_at"]) == (end_at, end_at)
    await asyncio.sleep(0.5)
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"


async def test_its_deadline_can_be_brought_forward(clean_node: Rig) -> None:
    sandbox = await clean_node.start("erin", ttl_ms=60_000)
    await clean_node.run(sandbox, "setsid -f sleep 1000")
    end_at = clean_node.keeper.set_deadline("erin", 1, 100, extend_only=False)
    assert 0 <= await ended_at(clean_node, "erin") - end_at < 1_000


async def test_extending_never_shortens(clean_node: Rig) -> None:
    sandbox = await clean_node.start("frank", ttl_ms=60_000)
    first = sandbox.end_at
    assert clean_node.keeper.set_deadline("frank", 1, 100, extend_only=True) == first
    later = clean_node.keeper.set_deadline("frank", 1, 120_000, extend_only=True)
    assert later > first + 50_000
    await asyncio.sleep(0.3)
    assert clean_node.keeper.sandboxes["frank"].end_at == later


async def test_its_deadline_can_be_now(clean_node: Rig) -> None:
    await clean_node.start("grace", ttl_ms=60_000)
    end_at = clean_node.keeper.set_deadline("grace", 1, 0, extend_only=False)
    assert await ended_at(clean_node, "grace") - end_at < 1_000


async def test_a_sandbox_that_has_ended_gets_no_new_deadline(clean_node: Rig) -> None:
    await clean_node.start("heidi", ttl_ms=0)
    await ended_at(clean_node, "heidi")
    with pytest.raises(UnknownSandbox):
        clean_node.keeper.set_deadline("heidi", 1, 60_000, extend_only=False)


async def test_a_sandbox_that_is_ending_gets_no_new_deadline(clean_node: Rig) -> None:
    await clean_node.start("ivan")
    stopping = asyncio.create_task(clean_node.keeper.stop("ivan", 1))
    await asyncio.sleep(0)
    with pytest.raises(UnknownSandbox):
        clean_node.keeper.set_deadline("ivan", 1, 60_000, extend_only=False)
    assert await stopping == "killed"


async def test_another_generation_s_deadline_is_not_moved(clean_node: Rig) -> None:
    sandbox = await clean_node.start("judy", generation=2)
    end_at = sandbox.end_at
    with pytest.raises(GenerationConflict):
        clean_node.keeper.set_deadline("judy", 1, 60_000, extend_only=False)
    assert sandbox.end_at == end_at


async def test_many_deadlines_at_once_are_met(clean_node: Rig) -> None:
    names = [f"many{number}" for number in range(6)]
    found = await asyncio.gather(*(clean_node.start(name, ttl_ms=60_000) for name in names))
    ends = {name: clean_node.keeper.set_deadline(name, 1, 300, extend_only=False) for name in names}
    assert [sandbox.end_at for sandbox in found] == list(ends.values())
    assert all([await ended_at(clean_node, name) - ends[name] < 1_000 for name in names])


async def test_its_deadline_is_kept_over_a_restart(node_home: Path) -> None:
    async with rig.running_node(node_home) as first:
        sandbox = await first.start("kept", ttl_ms=60_000)
        end_at = first.keeper.set_deadline("kept", 1, 90_000, extend_only=False)
        await first.hand_over()
    async with rig.running_node(node_home) as second:
        kept = second.keeper.sandboxes["kept"]
        assert (kept.started_at, kept.end_at) == (sandbox.started_at, end_at)
        soon = second.keeper.set_deadline("kept", 1, 200, extend_only=False)
        assert await ended_at(second, "kept") - soon < 1_000
        await second.is_clean()


async def test_a_deadline_that_passed_meanwhile_is_met_at_once(node_home: Path) -> None:
    async with rig.running_node(node_home) as first:
        await first.start("late", ttl_ms=200)
        await first.hand_over()
    await asyncio.sleep(0.4)
    assert rig.processes_of(node_home) != []
    began = epoch_ms()
    async with rig.running_node(node_home) as second:
        assert await ended_at(second, "late") - began < 1_000
        await second.is_clean()
