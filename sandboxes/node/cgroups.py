"""Control groups on v1, v2 and hybrid hosts, by direct file access.

A sandbox has one group of the same name in every hierarchy that the host offers. Resource limits live where the
controller lives; killing and freezing use the v2 tree where there is one, even when it holds no controller.
Facts and figures: measured on a hybrid host; file formats: the kernel's admin-guide/cgroup-v1 and cgroup-v2 pages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "devices", "freezer")
_V2_WANTED = ("cpu", "memory", "pids", "io")
# Short periods keep a throttled command from stalling for up to a tenth of a second.
_CPU_PERIOD_US = 20_000
# A larger buffer costs more than what is mostly read into it.
_CHUNK_BYTES = 64 * 1024
_HALF_PAGE_BYTES = 2_048
_FREEZE_PATIENCE_S = 0.5
# The part of a sandbox's memory limit that its socket buffers may take on top of it, as a divisor.
_SOCKET_SHARE = 4
# null, zero, full, random, urandom, tty, console's ptmx and the pseudo terminals: what a container's /dev needs.
_ALLOWED_DEVICES = (
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
)


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use. cpu in thousandths of a core, memory in bytes, pids in processes and threads."""

    cpu_milli: int
    memory_bytes: int
    pids: int


@dataclass(frozen=True)
class Stats:
    """What one sandbox uses now: CPU time in microseconds, memory in bytes, processes, times a limit struck."""

    cpu_usec: int
    memory_bytes: int
    memory_cache_bytes: int
    pids: int
    oom_kills: int
    pids_refused: int


@dataclass(frozen=True)
class Hierarchies:
    """Where this host keeps its control groups.

    `v1` maps a controller to its mount point; `v2` is the unified mount point, `v2_controllers` what it offers.
    `unused` are the mount points of version 1 that hold nothing a sandbox needs.
    """

    v1: dict[str, Path]
    v2: Path | None
    v2_controllers: frozenset[str]
    unused: tuple[Path, ...] = ()

    @property
    def mode(self) -> str:
        """Return `v2`, `v1` or `hybrid` (both trees are mounted)."""
        if self.v2 is None:
            return "v1"
        return "hybrid" if self.v1 else "v2"

    def missing(self) -> list[str]:
        """Return the controllers that limits need and neither tree offers."""
        return [name for name in ("cpu", "memory", "pids") if name not in self.v1 and name not in self.v2_controllers]

    def roots(self) -> list[Path]:
        """Return each mount point once; controllers that are mounted together share one."""
        found = dict.fromkeys(self.v1.values())
        if self.v2 is not None:
            found[self.v2] = None
        return list(found)


def detect(mountinfo: str | None = None) -> Hierarchies:
    """Read the host's hierarchies from /proc/self/mountinfo (or the text given)."""
    v1: dict[str, Path] = {}
    v1_mounts: list[Path] = []
    v2: Path | None = None
    for line in (mountinfo or Path("/proc/self/mountinfo").read_text()).splitlines():
        left, _, right = line.partition(" - ")
        mountpoint = Path(left.split()[4])
        fstype, _source, options = right.split(" ", 2)
        if fstype == "cgroup2":
            v2 = mountpoint
        elif fstype == "cgroup":
            v1_mounts.append(mountpoint)
            for name in options.split(","):
                if name in _V1_CONTROLLERS:
                    v1[name] = mountpoint
    offered: frozenset[str] = frozenset()
    if v2 is not None and (v2 / "cgroup.controllers").exists():
        offered = frozenset((v2 / "cgroup.controllers").read_text().split())
    used = set(v1.values())
    return Hierarchies(v1, v2, offered, tuple(mountpoint for mountpoint in v1_mounts if mountpoint not in used))


# These files are read and written by the dozen for every sandbox: plain calls, plain names.
def _read(path: str) -> str:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        data = chunk = os.read(handle, _CHUNK_BYTES)
        # The kernel hands a long list over in pages, of which only the last is shorter than half of one.
        while len(chunk) > _HALF_PAGE_BYTES:
            chunk = os.read(handle, _CHUNK_BYTES)
            data += chunk
        return data.decode()
    except OSError:
        return ""
    finally:
        os.close(handle)


def _write(path: str, value: int | str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(handle, str(value).encode())
    finally:
        os.close(handle)


def _keyed(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True)
class Cgroup:
    """One sandbox's group in every hierarchy. All methods are safe to repeat; `destroy` ends its life."""

    hierarchies: Hierarchies
    name: str
    dirs: dict[Path, str] = field(repr=False)

    def _v1(self, controller: str) -> str | None:
        root = self.hierarchies.v1.get(controller)
        return self.dirs[root] if root is not None else None

    @property
    def _v2(self) -> str | None:
        return self.dirs[self.hierarchies.v2] if self.hierarchies.v2 is not None else None

    def join_files(self) -> list[str]:
        """Return the files into which a process writes `0` to join."""
        # The tree that can kill comes first: from there on nothing gets away.
        ordered = sorted(self.dirs.values(), key=lambda directory: directory != self._v2)
        return [f"{directory}/cgroup.procs" for directory in ordered]

    def limit(self, limits: Limits) -> None:
        """Put all limits but the block I/O rate in force."""
        quota = max(1_000, limits.cpu_milli * _CPU_PERIOD_US // 1_000)
        if (cpu := self._v1("cpu")) is not None:
            _write(f"{cpu}/cpu.cfs_period_us", _CPU_PERIOD_US)
            _write(f"{cpu}/cpu.cfs_quota_us", quota)
            # An idle sandbox saves up one period, so that a short command is not cut into slices.
            with contextlib.suppress(OSError):
                _write(f"{cpu}/cpu.cfs_burst_us", quota)
        elif self._v2 is not None:
            _write(f"{self._v2}/cpu.max", f"{quota} {_CPU_PERIOD_US}")
            with contextlib.suppress(OSError):
                _write(f"{self._v2}/cpu.max.burst", quota)
        if (memory := self._v1("memory")) is not None:
            _write(f"{memory}/memory.limit_in_bytes", limits.memory_bytes)
            with contextlib.suppress(OSError):  # absent when the kernel does not account swap
                _write(f"{memory}/memory.memsw.limit_in_bytes", limits.memory_bytes)
            # v1 counts the buffers of TCP and UDP only where they have a limit of their own; v2 counts them as memory.
            with contextlib.suppress(OSError):  # absent when the kernel was built without it
                socket_bytes = limits.memory_bytes // _SOCKET_SHARE
                _write(f"{memory}/memory.kmem.tcp.limit_in_bytes", socket_bytes)
        elif self._v2 is not None:
            _write(f"{self._v2}/memory.max", limits.memory_bytes)
            with contextlib.suppress(OSError):
                _write(f"{self._v2}/memory.swap.max", "0")
        pids = self._v1("pids") or self._v2
        if pids is not None:
            _write(f"{pids}/pids.max", limits.pids)
        self.limit_devices()

    def limit_devices(self) -> None:
        """Allow the devices of a container's /dev and no other."""
        # On v2 devices are kept out by `nodev` mounts and the missing CAP_MKNOD; v1 adds its list to that.
        if (devices := self._v1("devices")) is not None:
            _write(f"{devices}/devices.deny", "a")
            for rule in _ALLOWED_DEVICES:
                _write(f"{devices}/devices.allow", rule)

    def limit_block_io(self, rate: int, device: str) -> None:
        """Hold reads and writes of the device `major:minor` to `rate` bytes per second each."""
        if (blkio := self._v1("blkio")) is not None:
            _write(f"{blkio}/blkio.throttle.read_bps_device", f"{device} {rate}")
            _write(f"{blkio}/blkio.throttle.write_bps_device", f"{device} {rate}")
        elif self._v2 is not None and "io" in self.hierarchies.v2_controllers:
            _write(f"{self._v2}/io.max", f"{device} rbps={rate} wbps={rate}")

    def pids(self) -> list[int]:
        """Return the processes in the group, as the host numbers them."""
        found: set[int] = set()
        for directory in self.dirs.values():
            found.update(int(pid) for pid in _read(f"{directory}/cgroup.procs").split())
        return sorted(found)

    def freeze(self, *, frozen: bool) -> None:
        """Begin to stop every process where it stands, or to let them go on; `is_frozen` tells when it is done."""
        if (directory := self._v2_freezer()) is not None:
            _write(f"{directory}/cgroup.freeze", "1" if frozen else "0")
        elif (freezer := self._v1("freezer")) is not None:
            _write(f"{freezer}/freezer.state", "FROZEN" if frozen else "THAWED")

    def is_frozen(self) -> bool:
        """Tell whether no process of the group runs, as the kernel knows it. FileNotFoundError: the group is gone."""
        if (directory := self._v2_freezer()) is not None:
            return _keyed(Path(directory, "cgroup.events").read_text()).get("frozen") == 1
        freezer = self._v1("freezer")
        return freezer is not None and Path(freezer, "freezer.state").read_text() == "FROZEN\n"

    def _v2_freezer(self) -> str | None:
        return self._v2 if self._v2 is not None and Path(self._v2, "cgroup.freeze").exists() else None

    def kill(self) -> None:
        """Send SIGKILL to every process, so that none can fork out of the way."""
        if self._v2 is not None and Path(self._v2, "cgroup.kill").exists():
            _write(f"{self._v2}/cgroup.kill", "1")
            return
        self.freeze(frozen=True)
        self._await_frozen()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.freeze(frozen=False)

    def _await_frozen(self) -> None:
        # Until all stand still, one may fork a child that the list of those to kill does not hold.
        freezer = self._v1("freezer")
        deadline = time.monotonic() + _FREEZE_PATIENCE_S
        while freezer and _read(f"{freezer}/freezer.state") == "FREEZING\n" and time.monotonic() < deadline:
            time.sleep(0.001)

    def stats(self) -> Stats:
        """Read what the sandbox uses; zeros once its group is gone."""
        cpuacct, memory, pids = self._v1("cpuacct"), self._v1("memory"), self._v1("pids")
        v2 = self._v2 or ""
        if cpuacct is not None:
            cpu_usec = _number(_read(f"{cpuacct}/cpuacct.usage")) // 1_000
        else:
            cpu_usec = _keyed(_read(f"{v2}/cpu.stat")).get("usage_usec", 0)
        if memory is not None:
            used = _number(_read(f"{memory}/memory.usage_in_bytes"))
            cache = _keyed(_read(f"{memory}/memory.stat")).get("total_cache", 0)
        else:
            used = _number(_read(f"{v2}/memory.current"))
            cache = _keyed(_read(f"{v2}/memory.stat")).get("file", 0)
        count_dir = pids or v2
        pids_current = _number(_read(f"{count_dir}/pids.current"))
        return Stats(cpu_usec, used, cache, pids_current, self.oom_kills(), self.refused_processes())

    def oom_kills(self) -> int:
        """Return how many processes were killed because memory ran out."""
        memory = self._v1("memory")
        file = f"{memory}/memory.oom_control" if memory is not None else f"{self._v2 or ''}/memory.events"
        return _keyed(_read(file)).get("oom_kill", 0)

    def refused_processes(self) -> int:
        """Return how many processes and threads the group's limit has refused."""
        return _keyed(_read(f"{self._v1('pids') or self._v2 or ''}/pids.events")).get("max", 0)

    def process_count(self) -> int:
        """Return how many processes and threads the group has."""
        return _number(_read(f"{self._controller_dir('pids')}/pids.current"))

    def user_process_limit(self) -> int:
        """Return how many processes and threads each user may have, as the first process hands it on; 0 for any."""
        first = next(iter(self.pids()), 0)
        limits = _read(f"/proc/{first}/limits")
        words = next((line.split() for line in limits.splitlines() if line.startswith("Max processes")), [])
        return _number(words[2]) if len(words) > 2 else 0

    def busiest_user(self) -> int:
        """Return how many processes and threads the user has who has most of them in the group."""
        directory = Path(self._controller_dir("pids"))
        file = directory / ("cgroup.threads" if self._v1("pids") is None else "tasks")
        owners: Counter[int] = Counter()
        for task in _read(str(file)).split():
            with contextlib.suppress(OSError):
                owners[Path("/proc", task).stat().st_uid] += 1
        return max(owners.values(), default=0)

    def _controller_dir(self, controller: str) -> str:
        directory = self._v1(controller) or self._v2
        if directory is None:
            raise FileNotFoundError(f"this host has no {controller} controller")
        return directory

    def destroy(self, *, patience_s: float = 0.2) -> bool:
        """Remove the group everywhere; False when a process still holds it after `patience_s` seconds."""
        deadline = time.monotonic() + patience_s
        remaining = list(self.dirs.values())
        while True:
            remaining = [directory for directory in remaining if not _removed(directory)]
            if not remaining or time.monotonic() > deadline:
                return not remaining
            # The kernel drops a dead member a moment after its exit was reported; nothing announces it.
            time.sleep(0.002)


def _removed(directory: str) -> bool:
    try:
        os.rmdir(directory)  # noqa: PTH106 - see _read
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class CgroupParent:
    """The group below which all sandboxes of one node live, named after the node's own store."""

    def __init__(self, name: str, hierarchies: Hierarchies) -> None:
        self.name = name
        self.hierarchies = hierarchies

    def prepare(self) -> None:
        """Make the parent in every hierarchy and hand the v2 controllers down."""
        for root in self.hierarchies.roots():
            (root / self.name).mkdir(exist_ok=True)
        if self.hierarchies.v2 is not None:
            wanted = [
                name
                for name in _V2_WANTED
                if name in self.hierarchies.v2_controllers and name not in self.hierarchies.v1
            ]
            if wanted:
                words = " ".join(f"+{name}" for name in wanted)
                for directory in (self.hierarchies.v2, self.hierarchies.v2 / self.name):
                    (directory / "cgroup.subtree_control").write_text(words)

    def remove_if_empty(self) -> None:
        """Leave nothing on the host when the last sandbox is gone."""
        for root in self.hierarchies.roots():
            with contextlib.suppress(OSError):
                (root / self.name).rmdir()

    def group(self, name: str) -> Cgroup:
        """Return the handle of a group, whether it exists or not."""
        dirs = {root: f"{root}/{self.name}/{name}" for root in self.hierarchies.roots()}
        return Cgroup(self.hierarchies, f"{self.name}/{name}", dirs)

    def create(self, name: str) -> Cgroup:
        """Make a new, empty group. A left-over of that name is killed and removed first."""
        group = self.group(name)
        for directory in group.dirs.values():
            try:
                os.mkdir(directory)  # noqa: PTH102 - see _read
            except FileExistsError:
                group.kill()
                group.destroy(patience_s=2.0)
                os.makedirs(directory, exist_ok=True)  # noqa: PTH103
        return group

    def names(self) -> Iterator[str]:
        """Yield every group below the parent, in whichever hierarchy it is left."""
        seen: set[str] = set()
        for root in self.hierarchies.roots():
            parent = root / self.name
            if parent.is_dir():
                seen.update(entry.name for entry in parent.iterdir() if entry.is_dir())
        yield from sorted(seen)

    def sweep(self, is_owned: Callable[[str], bool]) -> list[str]:
        """Kill and remove every group that nobody owns; return their names."""
        swept = []
        for name in self.names():
            if not is_owned(name):
                group = self.group(name)
                with contextlib.suppress(FileNotFoundError):
                    group.kill()
                group.destroy(patience_s=2.0)
                swept.append(name)
        return swept
