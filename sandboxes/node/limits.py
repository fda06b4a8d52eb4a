"""Which limits a control group has in force, read back from the kernel instead of from what was written."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.node.cgroups import Cgroup

# Python makes room for all of it before it reads: more costs time for every file.
_PIECE_BYTES = 8_192
SWAPS = Path("/proc/swaps")
_HALF_PAGE_BYTES = 2_048
# Version 1 says "no limit" with the largest number of whole pages, version 2 with a word.
_NO_LIMIT = 2**62


@dataclass(frozen=True)
class LimitsInForce:
    """What a group may use, None for no limit. `swap_bytes` is 0 where the host has no swap to use."""

    memory_bytes: int | None
    swap_bytes: int | None
    pids: int | None
    cpu_milli: int | None


def in_force(group: Cgroup) -> LimitsInForce:
    """Read the limits of a group from wherever the host keeps them."""
    memory = _bytes(group, "memory", "memory.limit_in_bytes", "memory.max")
    return LimitsInForce(memory, _swap(group, memory), _bytes(group, "pids", "pids.max", "pids.max"), _cpu(group))


def members(group: Cgroup) -> Iterator[set[int]]:
    """Yield the processes of a group once for each hierarchy, so that one that is missing in any of them shows."""
    for directory in group.dirs.values():
        yield {int(pid) for pid in read_kernel_file(f"{directory}/cgroup.procs").split()}


def read_kernel_file(path: str) -> str:
    """Return all of a file of the kernel, which hands a long one over in pages: only the last may be a short one."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = chunk = os.read(handle, _PIECE_BYTES)
        while len(chunk) > _HALF_PAGE_BYTES:
            chunk = os.read(handle, _PIECE_BYTES)
            data += chunk
    finally:
        os.close(handle)
    # A process names itself in any bytes it likes.
    return data.decode(errors="replace")


def _directory(group: Cgroup, controller: str) -> tuple[str, bool]:
    """Return where the controller's files are, and whether they are those of version 1."""
    if (root := group.hierarchies.v1.get(controller)) is not None:
        return group.dirs[root], True
    if group.hierarchies.v2 is None:
        raise FileNotFoundError(f"this host has no {controller} controller")
    return group.dirs[group.hierarchies.v2], False


def _bytes(group: Cgroup, controller: str, first: str, second: str) -> int | None:
    directory, is_v1 = _directory(group, controller)
    text = read_kernel_file(f"{directory}/{first if is_v1 else second}").strip()
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None


def _swap(group: Cgroup, memory: int | None) -> int | None:
    directory, is_v1 = _directory(group, "memory")
    with contextlib.suppress(FileNotFoundError):
        if not is_v1:
            return _bytes(group, "memory", "", "memory.swap.max")
        both = read_kernel_file(f"{directory}/memory.memsw.limit_in_bytes").strip()
        return int(both) - memory if memory is not None and int(both) < _NO_LIMIT else None
    # A kernel that does not account swap can't limit it: harmless only where there is none.
    return 0 if len(SWAPS.read_text().splitlines()) < 2 else None


def _cpu(group: Cgroup) -> int | None:
    directory, is_v1 = _directory(group, "cpu")
    if is_v1:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = (read_kernel_file(f"{directory}/{name}").strip() for name in names)
    else:
        quota, period = read_kernel_file(f"{directory}/cpu.max").split()
    return int(quota) * 1_000 // int(period) if quota.isdigit() else None
