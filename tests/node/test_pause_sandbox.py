"""A paused sandbox stands still with all that it holds, costs neither time nor CPU, and goes on where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from corekit.clock import epoch_ms
from sandboxes.node import cgroups, freezing
from sandboxes.node.cgroups import Cgroup
from sandboxes.node.errors import Ending, NodeError, NoRoom, NotFrozen
from sandboxes.node.spec import Resources
from tests.node import rig
from tests.node.nodeprocess import call

if TYPE_CHECKING:
    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTER = "setsid -f bash -c 'while :; do echo $((++n)) > ~/count; done'"
STARTED, PAUSED, RESUMED, ENDED = (f"sandbox.{verb}" for verb in ("started", "paused", "resumed", "ended"))


def cpu_usec(sandbox: Sandbox) -> int:
    """Return the CPU time that the sandbox has had."""
    return sandbox.runtime.stats(sandbox.state).cpu_usec


def is_frozen(sandbox: Sandbox) -> bool:
    """Tell what the kernel knows."""
    return sandbox.runtime.cgroup(sandbox.state).is_frozen()


def on_disk(node: Rig, name: str) -> dict[str, Any]:
    """Return what the node has written down about a sandbox."""
    return dict(json.loads((node.home / "node" / "sandboxes" / name / "state.json").read_bytes()))


def told(node: Rig, name: str) -> str:
    """Return the state that the gateway was told last."""
    return str(node.keeper.feed._routes[name]["state"])


async def has_settled(node: Rig, name: str, *codes: str) -> None:
    """Return when these are the sandbox's events, and the node has written down that they are in the spool."""
    await rig.eventually(lambda: node.codes(name) == list(codes))
    await rig.eventually(lambda: on_disk(node, name)["unreported"] == [])


async def ask(node: Rig, path: str, body: object) -> tuple[int, Any]:
    """Make a call about a sandbox."""
    return await call(node.home / "run" / "node.sock", "POST", f"/v1/sandboxes/{path}", body)


# gVisor's own kernel takes some forty threads.
ROOMY = {"cpu_milli": 2000, "memory_mib": 384, "disk_mib": 64, "pids": 256}
WORLDS: dict[str, dict[str, Any]] = {**rig.WORLDS, "gvisor": {"runtime": "runsc", "resources": ROOMY}}


@pytest.mark.parametrize("world", WORLDS)
async def test_it_stands_still_and_goes_on(clean_node: Rig, world: str) -> None:
    name = f"alice{world}"
    sandbox = await clean_node.start(name, **WORLDS[world])
    await clean_node.run(sandbox, f"echo kept > note; {COUNTER}")
    pids = clean_node.pids(sandbox)
    before = epoch_ms()

    assert await clean_node.keeper.pause(name, 1) is sandbox
    assert before <= (sandbox.paused_at or 0) <= epoch_ms()
    assert (is_frozen(sandbox), told(clean_node, name)) == (True, "paused")
    used = cpu_usec(sandbox)
    await asyncio.sleep(0.2)
    assert (cpu_usec(sandbox), clean_node.pids(sandbox)) == (used, pids)

    await clean_node.keeper.resume(name, 1, 60_000)
    assert (is_frozen(sandbox), told(clean_node, name)) == (False, "running")
    assert (await clean_node.run(sandbox, "cat note; pgrep -fc 'while :'")).stdout == "kept\n1\n"
    await rig.eventually(lambda: cpu_usec(sandbox) > used)
    assert set(pids) <= set(clean_node.pids(sandbox))
    await has_settled(clean_node, name, STARTED, PAUSED, RESUMED)
    paused, resumed = clean_node.events(name)[1:]
    assert (paused["details"], resumed["details"], paused["phase"]) == ({"reason": "requested"}, {}, "fact")


async def test_the_call_answers_with_what_became_of_it(clean_node: Rig) -> None:
    _status, started = await call(clean_node.home / "run" / "node.sock", "POST", "/v1/sandboxes", rig.request("bob"))
    status, paused = await ask(clean_node, "bob/pause", {"generation": 1})
    paused_at = paused.pop("paused_at")
    assert (status, paused, type(paused_at)) == (200, started | {"state": "paused"}, int)
    assert await ask(clean_node, "bob/pause", {"generation": 1}) == (200, paused | {"paused_at": paused_at})
    _status, detail = await call(clean_node.home / "run" / "node.sock", "GET", "/v1/sandboxes/bob")
    assert (detail["state"], detail["paused_at"]) == ("paused", paused_at)
    _status, rows = await call(clean_node.home / "run" / "node.sock", "GET", "/v1/sandboxes")
    assert [row for row in rows["sandboxes"] if row["state"] != "ended"] == [paused | {"paused_at": paused_at}]

    before = epoch_ms()
    status, resumed = await ask(clean_node, "bob/resume", {"generation": 1, "ttl_ms": 60_000})
    assert before + 60_000 <= resumed["end_at"] <= epoch_ms() + 60_000
    assert (status, resumed) == (200, started | {"end_at": resumed["end_at"]})
    assert await ask(clean_node, "bob/resume", {"generation": 1, "ttl_ms": 1}) == (200, resumed)
    status, extended = await ask(clean_node, "bob/resume", {"generation": 1, "ttl_ms": 90_000})
    assert (status, extended["end_at"] - resumed["end_at"] >= 30_000) == (200, True)
    assert on_disk(clean_node, "bob")["end_at"] == extended["end_at"]
    await has_settled(clean_node, "bob", STARTED, PAUSED, RESUMED)


async def test_edits_of_five_rounds_are_all_there(clean_node: Rig) -> None:
    sandbox = await clean_node.start("carol")
    for number in range(5):
        await clean_node.run(sandbox, f"echo {number} >> log; head -c 1M /dev/urandom >> blob; sha256sum blob > sum")
        await clean_node.keeper.pause("carol", 1)
        await clean_node.keeper.resume("carol", 1, 60_000)
    done = await clean_node.run(sandbox, "cat log; sha256sum -c sum")
    assert done.stdout == "0\n1\n2\n3\n4\nblob: OK\n"


async def test_a_large_write_is_whole_after_its_deadline_paused_it(clean_node: Rig) -> None:
    roomy = {"cpu_milli": 2000, "memory_mib": 256, "disk_mib": 512, "pids": 128}
    sandbox = await clean_node.start("dave", resources=roomy, on_timeout="pause")
    write = "head -c 200M /dev/urandom | tee blob | sha256sum > sum"
    writing = asyncio.create_task(clean_node.run(sandbox, write))
    await rig.eventually(lambda: cpu_usec(sandbox) > 300_000)
    end_at = clean_node.keeper.set_deadline("dave", 1, 0, extend_only=False)
    await rig.eventually(lambda: told(clean_node, "dave") == "paused")
    assert (sandbox.paused_at or 0) - end_at < 1_000
    assert not writing.done()
    await clean_node.keeper.resume("dave", 1, 60_000)
    assert (await writing).exit_code == 0
    assert (await clean_node.run(sandbox, "sed s/-/blob/ sum | sha256sum -c; stat -c %s blob")).stdout == (
        f"blob: OK\n{200 << 20}\n"
    )


async def test_a_command_s_output_goes_on_without_loss(clean_node: Rig) -> None:
    sandbox = await clean_node.start("erin")
    count = "for n in {1..3000}; do echo $n; [ $n = 50 ] && sleep 0.3; done"
    counting = asyncio.create_task(clean_node.run(sandbox, count))
    await asyncio.sleep(0.1)
    await clean_node.keeper.pause("erin", 1)
    await asyncio.sleep(0.5)
    assert not counting.done()
    await clean_node.keeper.resume("erin", 1, 60_000)
    assert (await counting).stdout.split() == [str(number) for number in range(1, 3001)]


# --- Deadlines


async def test_its_deadline_can_pause_it(clean_node: Rig) -> None:
    sandbox = await clean_node.start("frank", ttl_ms=300, on_timeout="pause")
    await rig.eventually(lambda: told(clean_node, "frank") == "paused")
    assert 0 <= (sandbox.paused_at or 0) - sandbox.end_at < 1_000
    assert is_frozen(sandbox)
    await has_settled(clean_node, "frank", STARTED, PAUSED)
    assert clean_node.events("frank")[1]["details"] == {"reason": "expired"}
    await clean_node.keeper.resume("frank", 1, 200)
    await rig.eventually(lambda: told(clean_node, "frank") == "paused")
    await has_settled(clean_node, "frank", STARTED, PAUSED, RESUMED, PAUSED)


@pytest.mark.parametrize("on_timeout", ["kill", "pause"])
async def test_no_deadline_runs_while_it_is_paused(clean_node: Rig, on_timeout: str) -> None:
    name = f"grace{on_timeout}"
    sandbox = await clean_node.start(name, ttl_ms=200, on_timeout=on_timeout)
    await clean_node.keeper.pause(name, 1)
    await asyncio.sleep(0.5)
    assert (sandbox.ending, told(clean_node, name)) == (None, "paused")
    refused = await ask(clean_node, f"{name}/deadline", {"generation": 1, "ttl_ms": 1, "extend_only": False})
    assert (refused[0], refused[1]["error"]["code"]) == (409, "paused")
    await has_settled(clean_node, name, STARTED, PAUSED)


async def test_a_resumed_one_ends_at_its_new_deadline(clean_node: Rig) -> None:
    sandbox = await clean_node.start("heidi", ttl_ms=60_000)
    await clean_node.keeper.pause("heidi", 1)
    await clean_node.keeper.resume("heidi", 1, 200)
    await rig.eventually(lambda: "heidi" in clean_node.keeper.ended)
    event = clean_node.keeper.ended["heidi"]
    assert (event["details"]["reason"], 0 <= event["at"] - sandbox.end_at < 1_000) == ("expired", True)


async def test_a_deadline_that_is_put_off_in_time_does_not_pause(clean_node: Rig) -> None:
    sandbox = await clean_node.start("ivan", ttl_ms=60_000, on_timeout="pause")
    async with sandbox.changing:
        clean_node.keeper.set_deadline("ivan", 1, 0, extend_only=False)
        await asyncio.sleep(0.05)
        clean_node.keeper.set_deadline("ivan", 1, 60_000, extend_only=False)
    await asyncio.sleep(0.05)
    assert (sandbox.paused_at, clean_node.codes("ivan")) == (None, [STARTED])


async def test_a_deadline_that_rings_too_early_is_not_lost(clean_node: Rig) -> None:
    sandbox = await clean_node.start("jane", ttl_ms=500, on_timeout="pause")
    clean_node.keeper._expire(sandbox)
    await asyncio.sleep(0.1)
    assert told(clean_node, "jane") == "running"
    await rig.eventually(lambda: told(clean_node, "jane") == "paused")
    assert (sandbox.paused_at or 0) >= sandbox.end_at


# --- What is kept, and what is left alone


async def test_its_memory_and_disk_stay_reserved(clean_node: Rig) -> None:
    await clean_node.start("judy")
    admission = clean_node.keeper.admission
    wanted = {"cpu_milli": 10, "memory_mib": admission.memory_mib - 255, "disk_mib": 16, "pids": 64}
    await clean_node.keeper.pause("judy", 1)
    with pytest.raises(NoRoom) as refusal:
        await clean_node.start("kevin", resources=wanted)
    assert refusal.value.details["free"] == admission.memory_mib - 256
    admission.require_room(Resources(**wanted), [])


async def test_nothing_looks_at_it_while_it_is_paused(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await clean_node.start("lea")
    await rig.eventually(lambda: len(sandbox.samples) == 1)
    await clean_node.keeper.pause("lea", 1)
    looks: list[str] = []
    monkeypatch.setattr(Cgroup, "oom_kills", lambda group: looks.append(group.name))
    await asyncio.sleep(2.5)
    assert (looks, len(sandbox.samples)) == ([], 1)
    monkeypatch.undo()
    await clean_node.keeper.resume("lea", 1, 60_000)
    await rig.eventually(lambda: len(sandbox.samples) == 2)


async def test_limits_that_strike_afterwards_are_reported(clean_node: Rig) -> None:
    sandbox = await clean_node.start("mona")
    await clean_node.keeper.pause("mona", 1)
    await clean_node.keeper.resume("mona", 1, 60_000)
    await clean_node.run(sandbox, "python3 -c 'x = bytearray(400 << 20)'")
    await rig.eventually(lambda: "limit.memory" in clean_node.codes("mona"))


# --- Ends


async def test_a_paused_one_can_be_killed(clean_node: Rig) -> None:
    sandbox = await clean_node.start("nina")
    await clean_node.run(sandbox, COUNTER)
    pids = clean_node.pids(sandbox)
    await clean_node.keeper.pause("nina", 1)
    assert await clean_node.keeper.stop("nina", 1) == "killed"
    assert [pid for pid in pids if rig.is_alive(pid)] == []
    assert clean_node.codes("nina") == [STARTED, PAUSED, ENDED]
    await clean_node.is_clean()


async def test_a_guest_that_is_killed_while_it_is_paused_ends_it(clean_node: Rig) -> None:
    sandbox = await clean_node.start("olga")
    await clean_node.keeper.pause("olga", 1)
    await asyncio.sleep(0.1)
    assert sandbox.ending is None
    os.kill(sandbox.state["pid"], signal.SIGKILL)
    await rig.eventually(lambda: "olga" in clean_node.keeper.ended)
    assert clean_node.keeper.ended["olga"]["details"]["reason"] == "guest_exited"
    await clean_node.is_clean()


async def test_a_kill_does_not_wait_for_a_pause(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await clean_node.start("paul")
    monkeypatch.setattr(Cgroup, "is_frozen", never_frozen)
    pausing = asyncio.create_task(clean_node.keeper.pause("paul", 1))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2.0):
        assert await clean_node.keeper.stop("paul", 1) == "killed"
        with pytest.raises(Ending):
            await pausing
    assert clean_node.codes("paul") == [STARTED, ENDED]
    await clean_node.is_clean()


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_one_that_is_ending_is_not_kept(clean_node: Rig, verb: str) -> None:
    name = f"quinn{verb}"
    await clean_node.start(name)
    stopping = asyncio.create_task(clean_node.keeper.stop(name, 1))
    await asyncio.sleep(0)
    status, answer = await ask(clean_node, f"{name}/{verb}", {"generation": 1, "ttl_ms": 1})
    assert (status, answer["error"]["code"]) == (409, "ending")
    assert await stopping == "killed"
    status, answer = await ask(clean_node, f"{name}/{verb}", {"generation": 1, "ttl_ms": 1})
    assert (status, answer["error"]["code"]) == (404, "unknown_sandbox")


# --- Refusals


def never_frozen(group: Cgroup) -> bool:
    """Stand for a group with a process that waits for its disk."""
    os.stat(next(iter(group.dirs.values())))  # noqa: PTH116 - as the real one, an error when the group is gone
    return False


@pytest.fixture
def unfreezable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no group freeze, and nobody wait long."""
    monkeypatch.setattr(Cgroup, "is_frozen", never_frozen)
    monkeypatch.setattr(freezing, "_PATIENCE_S", 0.2)


@pytest.mark.usefixtures("unfreezable")
async def test_what_does_not_freeze_runs_on(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await clean_node.start("rosa", ttl_ms=60_000)
    with pytest.raises(NotFrozen) as refusal:
        await clean_node.keeper.pause("rosa", 1)
    assert (refusal.value.status, refusal.value.message) == (503, "The sandbox did not stand still in 0.2 s.")
    monkeypatch.undo()
    assert (is_frozen(sandbox), sandbox.paused_at, told(clean_node, "rosa")) == (False, None, "running")
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"
    assert on_disk(clean_node, "rosa")["paused_at"] is None
    assert clean_node.codes("rosa") == [STARTED]
    clean_node.keeper.set_deadline("rosa", 1, 0, extend_only=False)
    await rig.eventually(lambda: "rosa" in clean_node.keeper.ended)


@pytest.mark.usefixtures("unfreezable")
async def test_a_deadline_that_can_not_pause_it_tries_again(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await clean_node.start("sara", ttl_ms=100, on_timeout="pause")
    await asyncio.sleep(0.5)
    assert told(clean_node, "sara") == "running"
    monkeypatch.undo()
    await rig.eventually(lambda: told(clean_node, "sara") == "paused")
    assert is_frozen(sandbox)
    await has_settled(clean_node, "sara", STARTED, PAUSED)


async def test_a_pause_that_can_not_be_written_down_does_not_happen(clean_node: Rig) -> None:
    sandbox = await clean_node.start("tom")
    state = clean_node.home / "node" / "sandboxes" / "tom" / "state.json.new"
    state.mkdir()
    status, answer = await ask(clean_node, "tom/pause", {"generation": 1})
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert (is_frozen(sandbox), sandbox.paused_at, told(clean_node, "tom")) == (False, None, "running")
    state.rmdir()
    assert (await ask(clean_node, "tom/pause", {"generation": 1}))[0] == 200
    await has_settled(clean_node, "tom", STARTED, PAUSED)


async def test_a_pause_that_nobody_waits_for_any_more_is_finished(clean_node: Rig) -> None:
    sandbox = await clean_node.start("uma")
    asking = asyncio.create_task(clean_node.keeper.pause("uma", 1))
    await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await has_settled(clean_node, "uma", STARTED, PAUSED)
    assert is_frozen(sandbox)


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_another_generation_is_left_alone(clean_node: Rig, verb: str) -> None:
    sandbox = await clean_node.start(f"vera{verb}", generation=2)
    status, answer = await ask(clean_node, f"vera{verb}/{verb}", {"generation": 1, "ttl_ms": 1})
    assert (status, answer["error"]["code"]) == (409, "generation_conflict")
    status, answer = await ask(clean_node, f"nobody/{verb}", {"generation": 1, "ttl_ms": 1})
    assert (status, answer["error"]["code"]) == (404, "unknown_sandbox")
    assert (sandbox.paused_at, is_frozen(sandbox)) == (None, False)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("x/pause", {}, "generation"),
        ("x/pause", {"generation": "1"}, "generation"),
        ("x/pause", [], "body"),
        ("x/resume", {"ttl_ms": 1}, "generation"),
        ("x/resume", {"generation": 1}, "ttl_ms"),
        ("x/resume", {"generation": 1, "ttl_ms": -1}, "ttl_ms"),
        ("x/resume", {"generation": 1, "ttl_ms": 31 * 24 * 3600 * 1000 + 1}, "ttl_ms"),
    ],
)
async def test_a_wrong_field_is_named(clean_node: Rig, path: str, body: object, field: str) -> None:
    status, answer = await ask(clean_node, path, body)
    assert (status, answer["error"]["code"], answer["error"]["details"]) == (400, "bad_request", {"field": field})


# --- A host without version 2 of control groups


async def test_the_freezer_of_version_1_does_the_same(node_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cgroups.detect()
    monkeypatch.setattr(cgroups, "detect", lambda: cgroups.Hierarchies(found.v1, None, frozenset()))
    async with rig.running_node(node_home) as first:
        kept = await first.start("kept", **rig.WORLDS["process"])
        killed = await first.start("killed", **rig.WORLDS["process"])
        for sandbox in (kept, killed):
            await first.run(sandbox, COUNTER)
            await first.keeper.pause(sandbox.spec.id, 1)
        used = cpu_usec(kept)
        assert await first.keeper.stop("killed", 1) == "killed"
        await first.hand_over()
    async with rig.running_node(node_home) as second:
        kept = second.keeper.sandboxes["kept"]
        assert (kept.summary()["state"], is_frozen(kept), cpu_usec(kept)) == ("paused", True, used)
        await second.keeper.resume("kept", 1, 60_000)
        assert (await second.run(kept, "pgrep -fc 'while :'")).stdout == "1\n"
        await second.keeper.pause("kept", 1)
        pids = second.pids(kept)
        assert await second.keeper.stop("kept", 1) == "killed"
        assert [pid for pid in pids if rig.is_alive(pid)] == []


# --- Everything at once


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes_at_once_there_is_one_truth(clean_node: Rig, seed: int) -> None:
    """The kernel, the disk, the gateway, the events and the summary agree once nothing happens any more."""
    chance, keeper, name = random.Random(seed), clean_node.keeper, f"race{seed}"
    sandbox = await clean_node.start(name, on_timeout="pause")

    async def act() -> None:
        await asyncio.sleep(chance.random() * 0.05)
        with contextlib.suppress(NodeError):
            match chance.randrange(4):
                case 0 | 1:
                    await keeper.pause(name, 1)
                case 2:
                    await keeper.resume(name, 1, chance.choice([0, 10, 60_000]))
                case 3:
                    keeper.set_deadline(name, 1, chance.choice([0, 10, 60_000]), extend_only=chance.random() < 0.5)

    await asyncio.gather(*(act() for _ in range(40)))
    await asyncio.sleep(0.1)
    await rig.eventually(lambda: on_disk(clean_node, name)["unreported"] == [])
    truth = sandbox.paused_at is not None
    assert (is_frozen(sandbox), told(clean_node, name) == "paused") == (truth, truth)
    assert on_disk(clean_node, name)["paused_at"] == sandbox.paused_at
    changes = clean_node.codes(name)[1:]
    assert changes == [PAUSED, RESUMED] * (len(changes) // 2) + [PAUSED] * (len(changes) % 2)
    assert len(changes) % 2 == truth
    await keeper.resume(name, 1, 60_000)
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"


@pytest.mark.parametrize("seed", range(4))
async def test_a_kill_amid_all_that_is_final(clean_node: Rig, seed: int) -> None:
    chance, keeper, name = random.Random(seed), clean_node.keeper, f"fall{seed}"
    sandbox = await clean_node.start(name, on_timeout=chance.choice(["kill", "pause"]))
    pids = clean_node.pids(sandbox)

    async def act(number: int) -> None:
        await asyncio.sleep(chance.random() * 0.03)
        with contextlib.suppress(NodeError):
            if number == 0:
                await keeper.stop(name, 1)
            elif number % 2:
                await keeper.pause(name, 1)
            else:
                await keeper.resume(name, 1, chance.choice([0, 60_000]))

    await asyncio.gather(*(act(number) for number in range(15)))
    await rig.eventually(lambda: name in keeper.ended)
    assert (clean_node.codes(name)[-1], clean_node.codes(name).count(ENDED)) == (ENDED, 1)
    assert [pid for pid in pids if rig.is_alive(pid)] == []
    assert not Path(clean_node.home, "node", "sandboxes", name).exists()
    await clean_node.is_clean()
