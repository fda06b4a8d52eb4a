"""Limits are read back from the kernel's files, wherever a host keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandboxes.node import cgroups, limits
from sandboxes.node.limits import LimitsInForce

if TYPE_CHECKING:
    from pathlib import Path

V1 = {
    "memory/memory.limit_in_bytes": "268435456",
    "memory/memory.memsw.limit_in_bytes": "268435456",
    "pids/pids.max": "128",
    "cpu/cpu.cfs_quota_us": "40000",
    "cpu/cpu.cfs_period_us": "20000",
}
V2 = {"memory.max": "268435456", "memory.swap.max": "0", "pids.max": "128", "cpu.max": "40000 20000"}
KEPT = LimitsInForce(memory_bytes=256 << 20, swap_bytes=0, pids=128, cpu_milli=2000)


def group_on_v1(root: Path, **changes: str | None) -> cgroups.Cgroup:
    """Return a group on a made-up host of version 1; a change to None leaves the file out."""
    v1 = {name: root / name for name in ("memory", "pids", "cpu")}
    for name, text in V1.items():
        controller, file = name.split("/")
        put(root / controller / "parent" / "0" / file, changes.get(file.replace(".", "_"), text))
    return cgroups.CgroupParent("parent", cgroups.Hierarchies(v1, None, frozenset())).group("0")


def group_on_v2(root: Path, **changes: str | None) -> cgroups.Cgroup:
    """Return the same on version 2."""
    for file, text in V2.items():
        put(root / "parent" / "0" / file, changes.get(file.replace(".", "_"), text))
    hierarchies = cgroups.Hierarchies({}, root, frozenset({"memory", "pids", "cpu"}))
    return cgroups.CgroupParent("parent", hierarchies).group("0")


def put(path: Path, text: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        path.write_text(text + "\n")


@pytest.mark.parametrize("make", [group_on_v1, group_on_v2], ids=["v1", "v2"])
def test_what_was_written_is_read(tmp_path: Path, make: type) -> None:
    assert limits.in_force(make(tmp_path)) == KEPT


def test_no_limit_is_none_on_v1(tmp_path: Path) -> None:
    group = group_on_v1(
        tmp_path,
        memory_limit_in_bytes="9223372036854771712",
        memory_memsw_limit_in_bytes="9223372036854771712",
        pids_max="max",
        cpu_cfs_quota_us="-1",
    )
    assert limits.in_force(group) == LimitsInForce(None, None, None, None)


def test_no_limit_is_none_on_v2(tmp_path: Path) -> None:
    group = group_on_v2(tmp_path, memory_max="max", memory_swap_max="max", pids_max="max", cpu_max="max 100000")
    assert limits.in_force(group) == LimitsInForce(None, None, None, None)


def test_swap_beside_the_memory_shows(tmp_path: Path) -> None:
    assert limits.in_force(group_on_v1(tmp_path, memory_memsw_limit_in_bytes="536870912")).swap_bytes == 256 << 20


@pytest.mark.parametrize(
    ("make", "change"),
    [(group_on_v1, {"memory_memsw_limit_in_bytes": None}), (group_on_v2, {"memory_swap_max": None})],
    ids=["v1", "v2"],
)
@pytest.mark.parametrize(("areas", "found"), [("", 0), ("\n/dev/vdb partition 1000 0 -2", None)], ids=["none", "some"])
def test_swap_that_is_not_accounted_is_none_only_where_there_is_some(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: type,
    change: dict[str, None],
    areas: str,
    found: int | None,
) -> None:
    put(tmp_path / "swaps", "Filename Type Size Used Priority" + areas)
    monkeypatch.setattr(limits, "SWAPS", tmp_path / "swaps")
    assert limits.in_force(make(tmp_path, **change)).swap_bytes == found


def test_a_process_that_is_missing_in_one_tree_shows(tmp_path: Path) -> None:
    group = group_on_v1(tmp_path)
    for name, pids in {"memory": "7\n8", "pids": "7\n8", "cpu": "7"}.items():
        put(tmp_path / name / "parent" / "0" / "cgroup.procs", pids)
    assert list(limits.members(group)) == [{7, 8}, {7, 8}, {7}]


def test_long_files_are_read_to_their_end(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 100_000)
    assert limits.read_kernel_file(str(tmp_path / "long")) == "x" * 100_000
