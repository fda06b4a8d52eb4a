"""What every sandbox uses is measured each five seconds, by one sampler, at a cost that does not grow in bursts."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from corekit.clock import epoch_ms
from sandboxes.node import samples as samples_module
from sandboxes.node.samples import Ring, Sampler
from tests.node import rig
from tests.node.nodeprocess import call

if TYPE_CHECKING:
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(node: Rig, path: str) -> tuple[int, Any]:
    """Make a call about a sandbox."""
    return await call(node.home / "run" / "node.sock", "GET", f"/v1/sandboxes/{path}")


async def test_the_first_sample_comes_right_after_the_start(clean_node: Rig) -> None:
    sandbox = await clean_node.start("alice")
    await rig.eventually(lambda: len(sandbox.samples) == 1, within_s=1.0)
    status, answer = await ask(clean_node, "alice/samples?start_ms=0")
    (sample,) = answer["samples"]
    assert status == 200
    assert sandbox.started_at <= sample["at"] <= sandbox.started_at + 1_000
    _status, now = await ask(clean_node, "alice/metrics")
    assert set(sample) == set(now)
    assert (sample["cpu_milli"], sample["memory_mib"], sample["disk_mib"]) == (2000, 256, 64)
    assert sample["cpu_usec"] > 0
    assert sample["memory_bytes"] > 1 << 20
    assert sample["disk_used_bytes"] > 0


async def test_samples_follow_each_other_and_windows_cut_them(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "_PERIOD_S", 0.1)
    sandbox = await clean_node.start("bob")
    await rig.eventually(lambda: len(sandbox.samples) == 5)
    await clean_node.keeper.pause("bob", 1)
    taken = (await ask(clean_node, "bob/samples"))[1]["samples"]
    times = [sample["at"] for sample in taken]
    assert all(90 <= after - before < 1_000 for before, after in itertools.pairwise(times))
    window = await ask(clean_node, f"bob/samples?start_ms={times[1]}&end_ms={times[3]}")
    assert window == (200, {"samples": taken[1:4]})
    assert await ask(clean_node, f"bob/samples?start_ms=0&end_ms={sandbox.started_at - 1}") == (200, {"samples": []})
    assert await ask(clean_node, f"bob/samples?start_ms={epoch_ms() + 60_000}") == (200, {"samples": []})


async def test_they_are_kept_over_a_pause_and_go_on_after_it(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "_PERIOD_S", 0.1)
    sandbox = await clean_node.start("carol")
    await rig.eventually(lambda: len(sandbox.samples) >= 2)
    await clean_node.keeper.pause("carol", 1)
    before = (await ask(clean_node, "carol/samples"))[1]["samples"]
    await asyncio.sleep(0.3)
    assert (await ask(clean_node, "carol/samples"))[1]["samples"] == before
    await clean_node.keeper.resume("carol", 1, 60_000)
    await rig.eventually(lambda: len(sandbox.samples) > len(before))
    assert (await ask(clean_node, "carol/samples"))[1]["samples"][: len(before)] == before


async def test_a_sandbox_that_ended_is_measured_no_more(clean_node: Rig) -> None:
    await clean_node.start("dave")
    await clean_node.keeper.stop("dave", 1)
    assert clean_node.keeper.sampler._watched == {}
    assert (await ask(clean_node, "dave/samples"))[0] == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [("start_ms=-1", "start_ms"), ("start_ms=soon", "start_ms"), ("end_ms=1.5", "end_ms"), ("end_ms=", "end_ms")],
)
async def test_a_wrong_window_is_named(clean_node: Rig, query: str, field: str) -> None:
    status, answer = await ask(clean_node, f"erin/samples?{query}")
    assert (status, answer["error"]["details"]) == (400, {"field": field})


# --- A ring


def sample(at: int) -> dict[str, int]:
    """Return a sample in which every counter tells when it was taken."""
    return dict.fromkeys(samples_module._FIELDS, at)


async def test_a_full_ring_gives_up_its_oldest() -> None:
    ring = Ring(capacity=4)
    for at in range(11):
        ring.add(sample(at))
        assert [one["at"] for one in ring.between(0, 100)] == list(range(max(0, at - 3), at + 1))
    assert ring.between(8, 9) == [sample(8), sample(9)]
    assert (ring.between(0, 6), ring.between(11, 100)) == ([], [])


async def test_an_hour_takes_no_more_than_it_must() -> None:
    ring = Ring()
    for at in range(5_000):
        ring.add(sample(at))
    assert len(ring) == 720
    assert ring._values.itemsize * len(ring._values) == 720 * 64


# --- One sampler for all


async def test_all_get_their_turn_and_none_waits_for_the_others(
    clean_node: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are due at once, a turn of the loop measures one of them."""
    one = await clean_node.start("frank")
    sampler, most, taken = Sampler(), 0, 0
    many = [type(one)(one.spec, one.runtime, one.state, 0, 0) for _ in range(150)]
    monkeypatch.setattr(samples_module, "_FIRST_S", 0.0)
    for sandbox in many:
        sampler.watch(sandbox)
    while taken < 150:
        await asyncio.sleep(0)
        before, taken = taken, sum(len(sandbox.samples) for sandbox in many)
        most = max(most, taken - before)
    sampler.close()
    assert ([len(sandbox.samples) for sandbox in many], most) == ([1] * 150, 1)


async def test_a_sample_that_fails_stops_nobody(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "_PERIOD_S", 0.05)
    broken, sound = await clean_node.start("grace"), await clean_node.start("heidi")
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))

    def out_of_order(_sandbox: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(broken.samples, "add", out_of_order)
    await rig.eventually(lambda: len(sound.samples) >= 4 and len(failures) >= 4)
    asyncio.get_running_loop().set_exception_handler(None)
