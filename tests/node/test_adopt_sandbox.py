"""A node that died takes back exactly what still runs, and removes what nobody owns."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import linux
from sandboxes.node.store import Store
from tests.node import rig
from tests.node.nodeprocess import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def process(node_home: Path) -> Iterator[NodeProcess]:
    """Return a node that is not started yet; it is gone afterwards."""
    process = NodeProcess(node_home)
    yield process
    process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_sandboxes_outlive_the_node(process: NodeProcess, number: signal.Signals) -> None:
    process.environment = {"GATEHOUSE_POOL_SIZE": "2"}
    await process.start()
    before = {name: await process.start_sandbox(name, env={"NAME": name}) for name in ("alice", "bob")}
    await process.run("alice", "echo kept > note; setsid -f sleep 1000")
    states = {name: process.state(name) | {"unreported": []} for name in before}
    process.kill(number)
    assert await process_answers(process, "alice", "cat note; pgrep -xc sleep") == "kept\n1\n"

    await process.start()
    assert await process.rows() == {name: answer | {"tenant": rig.ACME} for name, answer in before.items()}
    assert {name: process.state(name) for name in before} == states
    assert await process_answers(process, "alice", "cat note; pgrep -xc sleep; echo $NAME") == "kept\n1\nalice\n"
    _status, metrics = await process.call("GET", "/v1/sandboxes/bob/metrics")
    assert (metrics["pids"] > 0, metrics["memory_mib"]) == (True, 256)

    await process.stop_all()
    process.kill(signal.SIGTERM)
    await rig.eventually(lambda: rig.leftovers(process.home) == {})


async def test_members_that_waited_are_swept(process: NodeProcess) -> None:
    process.environment = {"GATEHOUSE_POOL_SIZE": "3"}
    await process.start()
    await process.start_sandbox("alice")
    await rig.eventually(lambda: len(rig.leftovers(process.home)["groups"]) >= 2)
    slot = str(process.state("alice")["runtime"]["slot"])
    process.kill()

    process.environment = {}
    await process.start()
    await rig.eventually(lambda: len(rig.leftovers(process.home)["loops"]) == 1)
    found = rig.leftovers(process.home)
    assert (found["groups"], found["members"], found["sockets"]) == ([slot], [slot], [slot])
    assert (found["runtime"], found["stored"]) == ([f"slot-{slot}"], ["alice"])


async def test_a_node_that_dies_amid_many_starts_leaks_nothing(process: NodeProcess) -> None:
    process.environment = {"GATEHOUSE_POOL_SIZE": "2"}
    await process.start()
    names = [f"many{number}" for number in range(20)]
    asked = [asyncio.create_task(process.call("POST", "/v1/sandboxes", rig.request(name))) for name in names]
    await rig.eventually(lambda: len(list((process.home / "node" / "sandboxes").glob("*/state.json"))) >= 4)
    process.kill()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    promised = {answer[1]["id"] for answer in answers if isinstance(answer, tuple)}

    process.environment = {}
    await process.start()
    rows = await process.rows()
    running = {name for name, row in rows.items() if row["state"] == "running"}
    failed = {name for name, row in rows.items() if row["state"] == "ended"}
    assert promised <= running
    assert running | failed <= set(names)
    assert {rows[name]["reason"] for name in failed} <= {"start_failed"}
    for name in running:
        assert await process_answers(process, name, "echo here") == "here\n"
    slots = sorted(str(process.state(name)["runtime"]["slot"]) for name in running)
    await rig.eventually(lambda: len(rig.leftovers(process.home)["loops"]) == len(slots))
    found = rig.leftovers(process.home)
    assert (found["groups"], found["members"], found["sockets"]) == (slots, slots, slots)
    assert (found["stored"], len(found["runtime"])) == (sorted(running), len(slots))

    await process.stop_all()
    await rig.eventually(lambda: rig.leftovers(process.home) == {})


async def test_a_restart_keeps_new_sandboxes_off_adopted_ones(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("alice", grants={"0a" * 8: None})
    assert (await process.call("DELETE", f"/v1/grants/{'0a' * 8}"))[1] == {"sandboxes": 1}
    await process.call("PUT", f"/v1/sandboxes/alice/grants/{'0b' * 8}", {"generation": 1, "expires_at": None})
    process.kill()
    await process.start()
    await process.start_sandbox("bob")
    assert process.state("bob")["runtime"]["slot"] != process.state("alice")["runtime"]["slot"]
    assert (await process.call("DELETE", f"/v1/grants/{'0a' * 8}"))[1] == {"sandboxes": 0}
    assert (await process.call("DELETE", f"/v1/grants/{'0b' * 8}"))[1] == {"sandboxes": 1}
    assert await process_answers(process, "alice", "echo here") == "here\n"


async def test_events_and_ends_are_kept_until_they_are_acknowledged(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("alice")
    assert (await process.call("DELETE", "/v1/sandboxes/alice?generation=1"))[0] == 200
    before = await process.events("alice")
    assert [event["code"] for event in before] == ["sandbox.started", "sandbox.ended"]
    process.kill()
    await process.start()
    assert await process.events("alice") == before
    status, row = await process.call("GET", "/v1/sandboxes/alice")
    assert (status, row["state"], row["reason"]) == (200, "ended", "killed")
    await process.call("POST", "/v1/events/ack", {"upto": before[-1]["seq"]})
    process.kill()
    await process.start()
    assert await process.events("alice") == []
    assert (await process.call("GET", "/v1/sandboxes/alice"))[0] == 404


async def test_a_start_is_reported_however_soon_the_node_dies(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("alice")
    process.kill()
    unreported = process.state("alice")["unreported"]
    await process.start()
    async with asyncio.timeout(rig.PATIENCE_S):
        while not (events := await process.events("alice")):
            await asyncio.sleep(0.01)
    assert [(event["code"], event["id"]) for event in events] == [("sandbox.started", unreported[0]["id"])]


async def test_a_second_node_on_the_same_home_does_not_start(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("alice")
    second = subprocess.run(
        [sys.executable, "-m", "sandboxes.node"],
        env={"PATH": os.environ["PATH"], "GATEHOUSE_HOME": str(process.home)},
        cwd=rig.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr == f"Another node already keeps {process.home}: stop it, or set GATEHOUSE_HOME.\n"
    assert await process_answers(process, "alice", "echo here") == "here\n"


async def process_answers(process: NodeProcess, sandbox_id: str, command: str) -> str:
    """Run a command in a sandbox and return what it wrote."""
    done = await process.run(sandbox_id, command)
    return done.stdout + done.stderr


# --- What a restart finds on disk, tried with nodes in this process.


def change(**runtime: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change of the runtime's part of the state."""
    return lambda state: state | {"runtime": state["runtime"] | runtime}


DISTRUSTED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any] | None], str]] = {
    "no state": (lambda _state: None, "start_failed"),
    "another boot": (change(boot_id="another-boot"), "host_rebooted"),
    "another start time": (lambda state: change(start_time=state["runtime"]["start_time"] + 1)(state), "lost"),
    "no such process": (change(pid=2**22 - 1), "lost"),
    "another slot": (change(slot=4000), "lost"),
    "no runtime": (lambda state: state | {"runtime": {}}, "host_rebooted"),
    "no times": (lambda state: {"runtime": state["runtime"]}, "lost"),
    "not an object": (lambda state: state | {"runtime": []}, "lost"),
}


def rewrite_state(home: Path, name: str, tamper: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change what is on disk about a sandbox that runs; None removes it."""
    path = home / "node" / "sandboxes" / name / "state.json"
    changed = tamper(json.loads(path.read_bytes()))
    if changed is None:
        path.unlink()
    else:
        path.write_text(json.dumps(changed))


async def test_a_state_that_does_not_fit_is_not_trusted(node_home: Path) -> None:
    names = {kind.replace(" ", ""): kind for kind in DISTRUSTED}
    async with rig.running_node(node_home) as first:
        found = await asyncio.gather(*(first.start(name) for name in names))
        await asyncio.gather(*(first.run(sandbox, "setsid -f sleep 1000") for sandbox in found))
        await first.hand_over()
    pids = rig.processes_of(node_home)
    assert len(pids) == 2 * len(names)
    for name, kind in names.items():
        rewrite_state(node_home, name, DISTRUSTED[kind][0])
    async with rig.running_node(node_home) as second:
        assert second.keeper.sandboxes == {}
        reasons = {kind: second.keeper.ended[name]["details"] for name, kind in names.items()}
        assert reasons == {kind: {"reason": reason} for kind, (_tamper, reason) in DISTRUSTED.items()}
        assert [pid for pid in pids if rig.is_alive(pid)] == []
        await second.is_clean()


async def test_a_stranger_s_process_is_neither_trusted_nor_touched(node_home: Path) -> None:
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        async with rig.running_node(node_home) as first:
            await first.start("alice")
            await first.hand_over()
        start_time = linux.process_start_time(stranger.pid)
        rewrite_state(node_home, "alice", change(pid=stranger.pid, start_time=start_time))
        async with rig.running_node(node_home) as second:
            assert second.keeper.sandboxes == {}
            assert second.keeper.ended["alice"]["details"] == {"reason": "lost"}
            await second.is_clean()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_sandbox_that_died_meanwhile_is_lost(node_home: Path) -> None:
    async with rig.running_node(node_home) as first:
        sandbox = await first.start("alice")
        await first.hand_over()
    os.kill(sandbox.state["pid"], signal.SIGKILL)
    linux.reap(sandbox.state["pid"], patience_s=5.0)
    async with rig.running_node(node_home) as second:
        assert second.keeper.ended["alice"]["details"] == {"reason": "lost"}
        await second.is_clean()


async def test_an_intent_without_a_process_is_a_failed_start(node_home: Path) -> None:
    async with rig.running_node(node_home):
        pass
    store = Store(node_home / "node")
    store.write_spec(rig.spec("planned", generation=3))
    (node_home / "node" / "sandboxes" / "torn").mkdir()
    (node_home / "node" / "sandboxes" / "torn" / "spec.json").write_text('{"id": "to')
    async with rig.running_node(node_home) as second:
        event = second.keeper.ended["planned"]
        assert (event["generation"], event["details"]) == (3, {"reason": "start_failed"})
        assert (second.codes("planned"), second.codes("torn")) == (["sandbox.ended"], [])
        await second.is_clean()


async def test_what_nobody_owns_is_swept(node_home: Path) -> None:
    async with rig.running_node(node_home):
        pass
    parent = rig.parent_group(node_home)
    parent.prepare()
    stray = subprocess.Popen(["sleep", "1000"])
    try:
        for name in parent.create("4000").join_files():
            Path(name).write_text(str(stray.pid))
        for directory in ("node/members/4001", "run/guests/4002", "node/runtime/slot-4003"):
            (node_home / directory).mkdir()
            (node_home / directory / "file").touch()
        async with rig.running_node(node_home) as second:
            assert not rig.is_alive(stray.pid)
            await second.is_clean()
            assert second.keeper.sandboxes == {}
    finally:
        stray.kill()
        stray.wait()


async def test_an_adopted_sandbox_ends_as_any_other(node_home: Path) -> None:
    async with rig.running_node(node_home) as first:
        sandboxes = [await first.start(name) for name in ("killed", "exited")]
        await first.hand_over()
    async with rig.running_node(node_home) as second:
        assert await second.keeper.stop("killed", 1) == "killed"
        os.kill(sandboxes[1].state["pid"], signal.SIGKILL)
        await rig.eventually(lambda: "exited" in second.keeper.ended)
        assert second.keeper.ended["exited"]["details"]["reason"] == "guest_exited"
        await second.is_clean()
