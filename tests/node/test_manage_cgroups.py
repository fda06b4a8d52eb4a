"""Control groups work on hosts with version 1, version 2 or both, by the files that each kernel offers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.node import cgroups
from sandboxes.node.cgroups import Cgroup, CgroupParent, Hierarchies, Limits, Stats
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import Iterator

# Recorded on a Debian 12 host with systemd; the mount point is filled in.
V2 = """\
22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
29 22 0:25 / {v2} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
# Recorded on a Debian 10 host: controllers mounted together, a named hierarchy, and the v2 tree without controllers.
SYSTEMD_HYBRID = """\
25 18 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:23 / {v2} rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
30 25 0:28 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,freezer
31 25 0:29 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory
32 25 0:30 / /sys/fs/cgroup/blkio rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,blkio
33 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:18 - cgroup cgroup rw,cpu,cpuacct
34 25 0:32 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:19 - cgroup cgroup rw,pids
35 25 0:33 / /sys/fs/cgroup/perf_event rw,nosuid,nodev,noexec,relatime shared:20 - cgroup cgroup rw,perf_event
36 25 0:34 / /sys/fs/cgroup/devices rw,nosuid,nodev,noexec,relatime shared:21 - cgroup cgroup rw,devices
"""
V1 = "".join(line for line in SYSTEMD_HYBRID.splitlines(keepends=True) if "cgroup2" not in line)

# What the tests of the real kernel started; all of it is gone after each.
STARTED: list[subprocess.Popen[bytes]] = []
LIMITS = Limits(cpu_milli=1500, memory_bytes=256 << 20, pids=128)
V2_FILES = {
    "cgroup.procs": "",
    "cgroup.threads": "",
    "cgroup.kill": "",
    "cgroup.freeze": "0\n",
    "cpu.max": "max 100000\n",
    "cpu.max.burst": "0\n",
    "cpu.stat": "usage_usec 123456\nuser_usec 100000\nsystem_usec 23456\nnr_periods 0\n",
    "io.max": "",
    "memory.current": "10485760\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
    "memory.max": "max\n",
    "memory.stat": "anon 1000\nfile 2048\nkernel 5\n",
    "memory.swap.max": "max\n",
    "pids.current": "7\n",
    "pids.events": "max 5\n",
    "pids.max": "max\n",
}


@pytest.fixture
def v2_tree(tmp_path: Path) -> Path:
    """Return a directory that looks like the unified tree of a host with all controllers."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma misc\n")
    return tmp_path


@pytest.fixture
def v2_group(v2_tree: Path) -> Cgroup:
    """Return a group in that tree, with the kernel's files as it finds them."""
    parent = CgroupParent("gatehouse", cgroups.detect(V2.format(v2=v2_tree)))
    parent.prepare()
    group = parent.create("7")
    for name, text in V2_FILES.items():
        (v2_tree / "gatehouse" / "7" / name).write_text(text)
    return group


def content(group: Cgroup, name: str) -> str:
    """Return what is in a file of a group in the made-up tree."""
    (directory,) = group.dirs.values()
    return Path(directory, name).read_text()


# --- Detecting


def test_a_host_with_version_2_is_detected(v2_tree: Path) -> None:
    found = cgroups.detect(V2.format(v2=v2_tree))
    assert (found.mode, found.v1, found.v2) == ("v2", {}, v2_tree)
    assert found.v2_controllers == {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}
    assert (found.missing(), found.roots()) == ([], [v2_tree])


def test_a_host_with_version_1_is_detected() -> None:
    found = cgroups.detect(V1)
    root = Path("/sys/fs/cgroup")
    assert (found.mode, found.v2, found.v2_controllers) == ("v1", None, frozenset())
    assert found.v1 == {
        "freezer": root / "freezer",
        "memory": root / "memory",
        "blkio": root / "blkio",
        "cpu": root / "cpu,cpuacct",
        "cpuacct": root / "cpu,cpuacct",
        "pids": root / "pids",
        "devices": root / "devices",
    }
    assert found.missing() == []
    assert found.roots().count(root / "cpu,cpuacct") == 1
    assert found.unused == (root / "systemd", root / "perf_event")


def test_a_host_with_both_is_detected(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    found = cgroups.detect(SYSTEMD_HYBRID.format(v2=tmp_path))
    assert (found.mode, found.v2, found.v2_controllers) == ("hybrid", tmp_path, frozenset({"hugetlb"}))
    assert found.missing() == []
    assert len(found.roots()) == 7


def test_missing_controllers_are_named(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io\n")
    assert cgroups.detect(V2.format(v2=tmp_path)).missing() == ["memory", "pids"]
    assert cgroups.detect("28 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n").missing() == ["cpu", "memory", "pids"]


def test_this_host_is_detected() -> None:
    found = cgroups.detect()
    assert found.missing() == []
    assert all(root.is_dir() for root in found.roots())


# --- Version 2, on a tree that looks like it


def test_controllers_are_handed_down(v2_tree: Path) -> None:
    CgroupParent("gatehouse", cgroups.detect(V2.format(v2=v2_tree))).prepare()
    for directory in (v2_tree, v2_tree / "gatehouse"):
        assert (directory / "cgroup.subtree_control").read_text() == "+cpu +memory +pids +io"


def test_limits_are_written(v2_group: Cgroup) -> None:
    v2_group.limit(LIMITS)
    assert content(v2_group, "cpu.max") == "30000 20000"
    assert content(v2_group, "cpu.max.burst") == "30000"
    assert content(v2_group, "memory.max") == str(256 << 20)
    assert content(v2_group, "memory.swap.max") == "0"
    assert content(v2_group, "pids.max") == "128"


def test_a_kernel_without_swap_and_burst_gets_the_other_limits(v2_group: Cgroup) -> None:
    (directory,) = v2_group.dirs.values()
    for name in ("memory.swap.max", "cpu.max.burst"):
        Path(directory, name).unlink()
    v2_group.limit(LIMITS)
    assert content(v2_group, "memory.max") == str(256 << 20)
    assert not Path(directory, "memory.swap.max").exists()


def test_the_smallest_share_of_a_processor_is_one_that_the_kernel_takes(v2_group: Cgroup) -> None:
    v2_group.limit(Limits(10, 16 << 20, 64))
    assert content(v2_group, "cpu.max") == "1000 20000"


def test_block_io_is_limited(v2_group: Cgroup) -> None:
    v2_group.limit_block_io(1000, "7:3")
    assert content(v2_group, "io.max") == "7:3 rbps=1000 wbps=1000"


def test_usage_is_read(v2_group: Cgroup) -> None:
    assert v2_group.stats() == Stats(
        cpu_usec=123456, memory_bytes=10485760, memory_cache_bytes=2048, pids=7, oom_kills=2, pids_refused=5
    )


def test_usage_of_a_group_that_is_gone_is_zero(v2_tree: Path) -> None:
    group = CgroupParent("gatehouse", cgroups.detect(V2.format(v2=v2_tree))).group("nothing")
    assert group.stats() == Stats(0, 0, 0, 0, 0, 0)
    assert (group.pids(), group.busiest_user(), group.user_process_limit()) == ([], 0, 0)


def test_freezing_and_killing_use_the_kernel_s_own_files(v2_group: Cgroup) -> None:
    v2_group.freeze(frozen=True)
    assert content(v2_group, "cgroup.freeze") == "1"
    v2_group.freeze(frozen=False)
    assert content(v2_group, "cgroup.freeze") == "0"
    v2_group.kill()
    assert content(v2_group, "cgroup.kill") == "1"


def test_long_lists_of_processes_are_read_whole(v2_group: Cgroup) -> None:
    (directory,) = v2_group.dirs.values()
    Path(directory, "cgroup.procs").write_text("".join(f"{pid}\n" for pid in range(30_000)))
    assert len(v2_group.pids()) == 30_000


def test_the_busiest_user_is_counted_by_threads(v2_group: Cgroup) -> None:
    (directory,) = v2_group.dirs.values()
    Path(directory, "cgroup.threads").write_text(f"{os.getpid()}\n{os.getppid()}\n4194303\n")
    assert v2_group.busiest_user() == 2


# --- The kernel of this host


@pytest.fixture(params=["as it is", "version 1 only"])
def parent(request: pytest.FixtureRequest) -> Iterator[CgroupParent]:
    """Return a parent group of the test's own: in all trees of this host, and as if version 2 were not there."""
    found = cgroups.detect()
    if request.param == "version 1 only" and found.v1:
        found = Hierarchies(found.v1, None, frozenset())
    parent = CgroupParent(f"gatehouse-test-{os.getpid()}", found)
    parent.prepare()
    yield parent
    parent.sweep(lambda _name: False)
    for process in STARTED:
        process.wait()
    STARTED.clear()
    parent.remove_if_empty()
    assert not any((root / parent.name).exists() for root in found.roots())


def run_in(group: Cgroup, program: str) -> subprocess.Popen[bytes]:
    """Run a Python program in a group."""
    join = "".join(f"open({name!r}, 'w').write('0'); " for name in group.join_files())
    STARTED.append(subprocess.Popen([sys.executable, "-c", f"import os, time; {join}\n{program}"]))
    return STARTED[-1]


def wait_for_pids(group: Cgroup, count: int) -> None:
    """Return when the group has at least so many processes in every tree."""
    deadline = time.monotonic() + rig.PATIENCE_S
    while min(len(Path(name).read_text().split()) for name in group.join_files()) < count:
        assert time.monotonic() < deadline, group.pids()
        time.sleep(0.005)


def test_a_group_exists_in_every_tree_until_it_is_destroyed(parent: CgroupParent) -> None:
    group = parent.create("1")
    assert all(Path(directory).is_dir() for directory in group.dirs.values())
    assert list(parent.names()) == ["1"]
    group.limit(LIMITS)
    assert (group.destroy(), group.destroy()) == (True, True)
    assert list(parent.names()) == []


def test_a_group_with_a_process_is_not_destroyed(parent: CgroupParent) -> None:
    group = parent.create("1")
    process = run_in(group, "time.sleep(1000)")
    wait_for_pids(group, 1)
    assert group.destroy(patience_s=0.02) is False
    assert group.pids() == [process.pid]
    group.kill()
    assert process.wait() == -9
    assert group.destroy() is True


def test_killing_spares_nobody(parent: CgroupParent) -> None:
    group = parent.create("1")
    group.limit(Limits(2000, 256 << 20, 64))
    bomb = """
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
    process = run_in(group, bomb)
    wait_for_pids(group, 50)
    group.kill()
    process.wait()
    assert group.destroy(patience_s=2.0) is True


def wait_until_frozen(group: Cgroup) -> None:
    """Return when the kernel says that nothing in the group runs."""
    deadline = time.monotonic() + rig.PATIENCE_S
    while not group.is_frozen():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_frozen_group_stands_still(parent: CgroupParent) -> None:
    group = parent.create("1")
    process = run_in(group, "while True: pass")
    wait_for_pids(group, 1)
    assert not group.is_frozen()
    group.freeze(frozen=True)
    wait_until_frozen(group)
    before = group.stats().cpu_usec
    time.sleep(0.1)
    assert group.stats().cpu_usec == before
    group.kill()
    assert process.wait() == -9


def test_a_frozen_group_goes_on_where_it_stopped(parent: CgroupParent) -> None:
    group = parent.create("1")
    run_in(group, "while True: pass")
    wait_for_pids(group, 1)
    group.freeze(frozen=True)
    wait_until_frozen(group)
    before = group.stats().cpu_usec
    group.freeze(frozen=False)
    assert not group.is_frozen()
    deadline = time.monotonic() + rig.PATIENCE_S
    while group.stats().cpu_usec == before:
        assert time.monotonic() < deadline


def test_a_fork_bomb_can_be_frozen(parent: CgroupParent) -> None:
    group = parent.create("1")
    group.limit(Limits(2000, 256 << 20, 64))
    run_in(group, "while True:\n    try:\n        os.fork() or os._exit(0)\n    except OSError:\n        pass")
    wait_for_pids(group, 2)
    group.freeze(frozen=True)
    wait_until_frozen(group)
    before = group.pids()
    time.sleep(0.05)
    assert group.pids() == before


def test_a_group_that_is_gone_can_not_be_asked(parent: CgroupParent) -> None:
    with pytest.raises(FileNotFoundError):
        parent.group("1").is_frozen()


def test_a_left_over_of_the_same_name_makes_way(parent: CgroupParent) -> None:
    process = run_in(parent.create("1"), "time.sleep(1000)")
    wait_for_pids(parent.group("1"), 1)
    group = parent.create("1")
    assert process.wait() == -9
    assert group.pids() == []


def test_sweeping_ends_what_nobody_owns(parent: CgroupParent) -> None:
    owned, stray = (run_in(parent.create(name), "time.sleep(1000)") for name in ("1", "2"))
    for name in ("1", "2"):
        wait_for_pids(parent.group(name), 1)
    assert parent.sweep(lambda name: name == "1") == ["2"]
    assert stray.wait() == -9
    assert owned.poll() is None
    assert list(parent.names()) == ["1"]
    parent.group("1").kill()
    owned.wait()


def test_usage_is_counted_by_the_kernel(parent: CgroupParent) -> None:
    group = parent.create("1")
    process = run_in(group, "x = b'x' * (20 << 20)\nwhile True: pass")
    wait_for_pids(group, 1)
    deadline = time.monotonic() + rig.PATIENCE_S
    while (stats := group.stats()).memory_bytes < 20 << 20 or stats.cpu_usec < 50_000:
        assert time.monotonic() < deadline, stats
        time.sleep(0.01)
    assert stats.pids == 1
    assert group.process_count() == 1
    assert group.busiest_user() == 1
    group.kill()
    process.wait()
