"""Whether this host has room, whatever the control plane believes: memory, disk, processes, uid ranges."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.node.errors import NoRoom
from sandboxes.node.slots import MAX_SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.node.spec import Resources

_MIB = 1024 * 1024
_FREE_MEMORY_MIB = 512
_FREE_DISK_MIB = 1_024
_FREE_PIDS = 2_000
_FREE_SLOTS = 64


class Admission:
    """Compares what sandboxes were promised, and what is really free, with the host's ceilings.

    Promises may pass what the host has by a ratio, since most sandboxes idle; real free memory, disk and processes are
    a floor that no promise can pass.
    """

    def __init__(self, store: Path, *, memory_overcommit: int, disk_overcommit: int) -> None:
        self._store = store
        memory = _meminfo()
        self.memory_mib = memory["MemTotal"] * memory_overcommit
        self._disk_overcommit = disk_overcommit
        self._pid_max = int(Path("/proc/sys/kernel/pid_max").read_text())

    @property
    def disk_mib(self) -> int:
        """How much disk may be promised in all."""
        stat = os.statvfs(self._store)
        return stat.f_blocks * stat.f_frsize // _MIB * self._disk_overcommit

    def capacity(self) -> dict[str, int]:
        """Return what may be promised in all, per resource; what is free at the moment may be less."""
        return {
            "cpu_milli": (os.cpu_count() or 1) * 1_000,
            "memory_mib": self.memory_mib,
            "disk_mib": self.disk_mib,
            "sandboxes": MAX_SLOTS - _FREE_SLOTS,
        }

    def require_room(self, wanted: Resources, running: Iterable[Resources]) -> None:
        """Raise NoRoom naming the first resource that would not do."""
        memory = disk = count = 0
        for resources in running:
            memory += resources.memory_mib
            disk += resources.disk_mib
            count += 1
        _require("memory_mib", wanted.memory_mib, self.memory_mib - memory)
        _require("disk_mib", wanted.disk_mib, self.disk_mib - disk)
        _require("uid_ranges", 1, MAX_SLOTS - _FREE_SLOTS - count)
        _require("free_memory_mib", 1, _meminfo()["MemAvailable"] - _FREE_MEMORY_MIB)
        stat = os.statvfs(self._store)
        _require("free_disk_mib", 1, stat.f_bavail * stat.f_frsize // _MIB - _FREE_DISK_MIB)
        _require("pids", wanted.pids, self._pid_max - _thread_count() - _FREE_PIDS)


def _require(resource: str, needed: int, free: int) -> None:
    if needed > free:
        raise NoRoom(
            f"This node has no room: {resource} needed {needed}, free {max(free, 0)}.",
            resource=resource,
            needed=needed,
            free=max(free, 0),
        )


def _meminfo() -> dict[str, int]:
    """Return MemTotal and MemAvailable in MiB."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines()[:3]:
        name, value = line.split(":")
        found[name] = int(value.split()[0]) // 1024
    return found


def _thread_count() -> int:
    return int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
