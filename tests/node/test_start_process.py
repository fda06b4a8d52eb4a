"""A jail: how bubblewrap brings it up, what is left of that, and what the host must have for it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import cgroups, linux
from sandboxes.node.errors import StartFailed, TierUnavailable
from sandboxes.node.order import USER_ID
from sandboxes.node.runtimes import process, syscallfilter
from sandboxes.node.slots import uid_base
from tests.node import rig
from tests.node.nodeprocess import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

JAIL = rig.WORLDS["process"]


async def start(node: Rig, **changes: Any) -> Sandbox:
    """Start a small jail."""
    return await node.start(**(JAIL | changes))


async def test_only_the_agent_is_left_of_the_start(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    assert clean_node.pids(sandbox) == [sandbox.state["pid"]]
    assert rig.command_line(sandbox.state["pid"]) == "/opt/gatehouse/guest "
    status = Path(f"/proc/{sandbox.state['pid']}/status").read_text()
    user = str(uid_base(sandbox.state["slot"]) + USER_ID)
    for kind in ("Uid", "Gid"):
        assert re.search(rf"^{kind}:\t(.*)$", status, re.MULTILINE)[1].split() == [user] * 4  # type: ignore[index]
    assert re.search(r"^Groups:\t\s*$", status, re.MULTILINE)
    assert rig.children_of(os.getpid()).count(sandbox.state["pid"]) == 1


async def test_it_has_namespaces_of_its_own(clean_node: Rig) -> None:
    first, second = await start(clean_node), await start(clean_node)
    for name in ("user", "pid", "net", "ipc", "uts", "cgroup", "mnt"):
        found = {Path(f"/proc/{pid}/ns/{name}").readlink() for pid in (os.getpid(), *_pids(first, second))}
        assert len(found) == 3, name


def _pids(*sandboxes: Sandbox) -> list[int]:
    return [int(sandbox.state["pid"]) for sandbox in sandboxes]


async def test_the_calls_of_root_and_of_other_architectures_are_no_part_of_its_filter(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    program = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
for number in (161, 116, 122, 123):
    libc.syscall(number, 0, 0)
    print(errno.errorcode[ctypes.get_errno()], end=" ")
"""
    done = await clean_node.run(sandbox, f"python3 - <<'END'\n{program}\nEND")
    assert done.stdout.split() == ["EPERM"] * 4
    assert len(syscallfilter.compile_filter()) % 8 == 0


async def test_it_ends_in_time_whatever_runs_in_it(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, "for n in $(seq 20); do setsid -f bash -c 'trap : TERM; while :; do :; done'; done")
    began = asyncio.get_running_loop().time()
    assert await clean_node.keeper.stop(sandbox.spec.id, 1) == "killed"
    assert asyncio.get_running_loop().time() - began < 1.0
    await clean_node.is_clean()


async def test_what_its_user_kills_is_not_the_agent(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, "kill -9 1; kill -9 -1")
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"


async def test_an_agent_that_is_not_enclosed_leaves_nothing_behind(clean_node: Rig) -> None:
    clean_node.use_guest("#!/bin/bash\necho no Landlock here >&2\nexit 1\n")
    try:
        with pytest.raises(StartFailed, match="no Landlock here"):
            await start(clean_node)
        await clean_node.is_clean()
    finally:
        clean_node.use_real_guest()


async def test_a_jail_that_can_not_be_made_says_why(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_node.node.process, "_masks", ("--no-such-option",))
    with pytest.raises(StartFailed, match="Unknown option --no-such-option"):
        await start(clean_node)
    await clean_node.is_clean()


async def test_the_other_profile_is_refused(clean_node: Rig) -> None:
    with pytest.raises(TierUnavailable, match="Profile workstation is not available"):
        await start(clean_node, profile="workstation")


# --- what the host must have


async def test_this_host_can_run_it(clean_node: Rig) -> None:
    found = clean_node.node.process.probe()
    version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    assert (found.available, found.runtimes) == (True, {"bwrap": version})


@pytest.mark.parametrize(
    ("target", "value", "reason", "fix"),
    [
        ("shutil.which", lambda _name: None, "bubblewrap is not installed.", "apt-get install bubblewrap"),
        ("linux.landlock_version", lambda: 0, "The kernel has no Landlock.", "lsm=landlock"),
        ("_try", lambda *_: "bwrap: no", "A trial jail failed: bwrap: no.", "outside of containers"),
    ],
    ids=["no bubblewrap", "no Landlock", "no luck"],
)
async def test_what_is_missing_is_named_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, target: str, value: object, reason: str, fix: str
) -> None:
    monkeypatch.setattr(f"sandboxes.node.runtimes.process.{target}", value)
    found = process.probe(cgroups.detect())
    assert (found.available, found.runtimes, found.reason) == (False, {}, reason)
    assert fix in str(found.fix)


async def test_a_filter_that_can_not_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> bytes:
        raise OSError("no library")

    monkeypatch.setattr(process, "compile_filter", refuse)
    found = process.probe(cgroups.detect())
    assert (found.available, found.reason) == (False, "The call filter can't be compiled: no library.")


async def test_the_trial_really_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("bwrap")
    assert program is not None
    assert process._try(program, syscallfilter.compile_filter()) is None
    assert "status 1" in str(process._try("/bin/false", b""))
    # A filter that allows nothing at all.
    assert process._try(program, bytes.fromhex("0600000000000000")) is not None


async def test_a_host_that_can_not_refuses_with_a_way_out(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "landlock_version", lambda: 0)
    monkeypatch.setattr(clean_node.node.process, "_availability", process.probe(cgroups.detect()))
    with pytest.raises(TierUnavailable) as refusal:
        await start(clean_node)
    assert refusal.value.details == {"tier": "process", "fix": "Boot a kernel with lsm=landlock."}
    await clean_node.is_clean()


# --- restarts


@pytest.fixture
def node_process(node_home: Path) -> Iterator[NodeProcess]:
    """Return a node that is not started yet; it is gone afterwards."""
    found = NodeProcess(node_home)
    yield found
    found.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_it_outlives_the_node(node_process: NodeProcess, number: signal.Signals) -> None:
    node_process.environment = {"GATEHOUSE_POOL_SIZE": "2"}
    await node_process.start()
    before = await node_process.start_sandbox("alice", **JAIL)
    await node_process.start_sandbox("bob", **rig.WORLDS["hardened"])
    await node_process.run("alice", "echo kept > note; setsid -f sleep 1000")
    state = node_process.state("alice")["runtime"]
    node_process.kill(number)
    assert (await node_process.run("alice", "cat note; pgrep -xc sleep")).stdout == "kept\n1\n"

    node_process.environment = {}
    await node_process.start()
    row = (await node_process.rows())["alice"]
    assert [row[name] for name in ("state", "started_at", "end_at")] == [
        "running",
        before["started_at"],
        before["end_at"],
    ]
    assert node_process.state("alice")["runtime"] == state
    for name in ("alice", "bob"):
        assert (await node_process.run(name, "echo here")).stdout == "here\n"
    slots = sorted(str(node_process.state(name)["runtime"]["slot"]) for name in ("alice", "bob"))
    # Members that waited are gone.
    await rig.eventually(lambda: sorted(rig.leftovers(node_process.home)["groups"]) == slots)
    await rig.eventually(lambda: len(rig.leftovers(node_process.home)["loops"]) == 2)

    await node_process.stop_all()
    node_process.kill(signal.SIGTERM)
    await rig.eventually(lambda: rig.leftovers(node_process.home) == {})


async def test_one_that_ended_meanwhile_is_reported(node_process: NodeProcess) -> None:
    await node_process.start()
    await node_process.start_sandbox("alice", **JAIL)
    pid = node_process.state("alice")["runtime"]["pid"]
    node_process.kill()
    os.kill(pid, signal.SIGKILL)
    await rig.eventually(lambda: not rig.is_alive(pid))
    await node_process.start()
    row = (await node_process.rows())["alice"]
    assert (row["state"], row["reason"]) == ("ended", "lost")
    await rig.eventually(lambda: {"groups", "members", "loops"}.isdisjoint(rig.leftovers(node_process.home)))
