"""Where crun is not installed runc does the same: same start, same limits, same end, nothing left."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from sandboxes.node import cgroups
from sandboxes.node.errors import StartFailed, TierUnavailable
from sandboxes.node.runtimes import container
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def _no_crun() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        version = container._version
        patch.setattr(container, "_version", lambda program: version(program) if program != "crun" else None)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(_no_crun: None) -> AsyncIterator[Rig]:
    """Return a node that finds no crun."""
    with rig.new_home() as home:
        async with rig.running_node(home) as running:
            yield running


def groups_anywhere(home: Path) -> list[str]:
    """Return every group of this home's sandboxes in any tree of the host, also in those that the node does not use."""
    name = rig.parent_group(home).name
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line]
    return [str(found) for mount in mounts for found in Path(mount, name).glob("*/")]


async def test_runc_is_what_runs(clean_node: Rig) -> None:
    found = clean_node.node.container.probe()
    assert (found.available, "crun" in found.runtimes, next(iter(found.runtimes))) == (True, False, "runc")
    assert "runc" in clean_node.node.container._command()[0]


async def test_a_runtime_that_is_not_there_is_no_other(clean_node: Rig) -> None:
    with pytest.raises(TierUnavailable) as refusal:
        await clean_node.start(runtime="crun")
    assert refusal.value.message == "Runtime crun is not available on this node."
    assert refusal.value.details == {
        "tier": "container",
        "fix": "Install crun on the node and start it again, or leave the choice to the node.",
    }
    assert (await clean_node.start(runtime="runc")).summary()["state"] == "running"


async def test_a_sandbox_starts_and_works(clean_node: Rig) -> None:
    sandbox = await clean_node.start(env={"NAME": "alice"})
    done = await clean_node.run(sandbox, "echo $NAME; id -un; sudo id -un; echo x > file; cat file")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "alice\nuser\nroot\nx\n", "")
    status = await clean_node.run(sandbox, "grep -E '^(CapBnd|Seccomp):' /proc/self/status; ls /proc/self/fd | wc -l")
    assert status.stdout.split() == ["CapBnd:", "00000000000405fb", "Seccomp:", "2", "4"]


async def test_a_hardened_one_starts_and_works(clean_node: Rig) -> None:
    sandbox = await clean_node.start(profile="hardened")
    done = await clean_node.run(sandbox, "id -un; echo x > file; cat file; cp /bin/true /tmp; /tmp/true || touch /new")
    assert (done.exit_code, done.stdout) == (1, "user\nx\n")
    assert "Permission denied" in done.stderr
    assert "Read-only file system" in done.stderr
    status = await clean_node.run(sandbox, "grep -E '^(CapBnd|CapEff|NoNewPrivs):' /proc/self/status | cut -f2")
    assert status.stdout.split() == ["0000000000000000", "0000000000000001", "1"]


async def test_it_is_in_the_node_s_control_groups_with_its_limits(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    pid = sandbox.state["pid"]
    group = sandbox.runtime.cgroup(sandbox.state)
    assert [Path(name).read_text().split() for name in group.join_files()] == [[str(pid)]] * len(group.dirs)
    limits = {
        Path(directory, name).read_text().strip()
        for directory in group.dirs.values()
        for name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us")
        if Path(directory, name).exists()
    }
    assert {"128", str(256 << 20)} <= limits
    assert sandbox.runtime.stats(sandbox.state).pids > 1


async def test_it_gets_no_device_more(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    lists = [Path(directory, "devices.list") for directory in sandbox.runtime.cgroup(sandbox.state).dirs.values()]
    for file in lists:
        if file.exists():
            assert sorted(file.read_text().splitlines()) == sorted(cgroups._ALLOWED_DEVICES)


async def test_memory_and_processes_are_limited(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    done = await clean_node.run(sandbox, "python3 -c 'x = bytearray(400 << 20)'; echo $?")
    assert done.stdout == "137\n"
    forks = "import os, time\nwhile True: os.fork() or time.sleep(1000)"
    assert "BlockingIOError" in (await clean_node.run(sandbox, f'python3 -c "{forks}"')).stderr
    assert sandbox.ending is None


async def test_stopping_leaves_nothing_in_any_tree(clean_node: Rig) -> None:
    sandbox = await clean_node.start("bob")
    await clean_node.run(sandbox, "setsid -f sleep 1000; setsid -f bash -c 'trap \"\" TERM; sleep 1000'")
    pids = clean_node.pids(sandbox)
    assert len(pids) >= 3
    assert await clean_node.keeper.stop("bob", 1) == "killed"
    assert [pid for pid in pids if rig.is_alive(pid)] == []
    await clean_node.is_clean()
    assert groups_anywhere(clean_node.home) == []


async def test_a_guest_that_dies_ends_the_sandbox(clean_node: Rig) -> None:
    sandbox = await clean_node.start("carol")
    os.kill(sandbox.state["pid"], signal.SIGKILL)
    await rig.eventually(lambda: "carol" in clean_node.keeper.ended)
    assert clean_node.keeper.ended["carol"]["details"]["reason"] == "guest_exited"


async def test_a_broken_guest_leaves_nothing_in_any_tree(clean_node: Rig) -> None:
    clean_node.use_guest("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    try:
        with pytest.raises(StartFailed, match="The sandbox did not start: no such luck"):
            await clean_node.start()
    finally:
        clean_node.use_real_guest()
    await clean_node.is_clean()
    assert groups_anywhere(clean_node.home) == []


async def test_a_new_node_takes_it_back(node_home: Path) -> None:
    async with rig.running_node(node_home) as first:
        await first.start("kept")
        await first.hand_over()
    async with rig.running_node(node_home, GATEHOUSE_POOL_SIZE="1") as second:
        kept = second.keeper.sandboxes["kept"]
        assert (await second.run(kept, "echo here")).stdout == "here\n"
        assert (await second.run(await second.start(), "echo here")).stdout == "here\n"
        await second.keeper.stop("kept", 1)
        assert not rig.is_alive(kept.state["pid"])
    assert groups_anywhere(node_home) == []
