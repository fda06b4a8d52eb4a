"""What a sandbox really got, read from the host's side before anybody is let in, and how it differs from its promise.

Nothing here asks the guest, and no name that a guest could have made is followed: everything comes from the kernel's
own files about the sandbox's first process and its control group. At hand-out only the agent runs in there.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandboxes.node import limits, linux
from sandboxes.node.limits import read_kernel_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.node.cgroups import Cgroup
    from sandboxes.node.limits import LimitsInForce

# Those that a process has for itself; `time` is no wall, since clocks of the host tell no secret.
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
RLIMITS = {
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_NPROC": "Max processes",
}
_SECCOMP_FILTER = 2
# Descriptors that no file system is behind.
_ANONYMOUS = ("pipe:[", "socket:[", "anon_inode:")

IdMap = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Mount:
    """One line of a mount table. `root` is which part of the file system is seen, `device` its number."""

    id: str
    device: str
    root: str
    point: str
    options: frozenset[str]
    kind: str
    source: str
    details: str

    def __str__(self) -> str:
        """Return it as the facts show it."""
        return f"{self.point} {self.kind} {','.join(sorted(self.options))}"


@dataclass(frozen=True)
class Facts:
    """What the kernel says of one sandbox. Ids are the host's; `rlimits` are hard limits, None for none.

    `shared` are the namespaces that are the node's own, `strays` the processes that are in the sandbox's pid namespace
    or its control group but not in both, `outside` the descriptors of the first process that lead to a file which is
    not in its mount table.
    """

    pid: int
    start_time: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    uid_map: IdMap
    gid_map: IdMap
    capabilities: dict[str, int]
    no_new_privs: bool
    seccomp_mode: int
    seccomp_filters: int
    shared: tuple[str, ...]
    mounts: tuple[Mount, ...]
    root_device: str
    at_root: bool
    processes: tuple[int, ...]
    strays: tuple[int, ...]
    limits: LimitsInForce
    interfaces: tuple[str, ...]
    routes: frozenset[str]
    rlimits: dict[str, int | None]
    outside: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what the internal API shows, as plain data."""
        return {
            "uid": self.uids[0],
            "uid_map": [list(row) for row in self.uid_map],
            "gid_map": [list(row) for row in self.gid_map],
            "capabilities": {name: f"{mask:016x}" for name, mask in self.capabilities.items()},
            "no_new_privs": self.no_new_privs,
            "seccomp": {"mode": self.seccomp_mode, "filters": self.seccomp_filters},
            "namespaces": [name for name in NAMESPACES if name not in self.shared],
            "mounts": [str(mount) for mount in self.mounts],
            "limits": vars(self.limits),
            "interfaces": list(self.interfaces),
            "routes": sorted(self.routes),
            "rlimits": self.rlimits,
        }


@dataclass(frozen=True)
class MountRule:
    """How a mount of the sandbox must be: its file system, the options it must have, and which part of it is seen.

    Without kinds any file system will do, and without a root any part of it.
    """

    kinds: frozenset[str]
    options: frozenset[str]
    root: str | None = "/"
    optional: bool = False


@dataclass(frozen=True)
class Expected:
    """What a tier and a profile promise of a process. What is named is exact, `rlimits` the most that is allowed.

    `mounts` maps each place to its rule: nothing else may be mounted but the covers over what is `masked`; None
    promises nothing of the mount table. `start_time`, `limits` and `routes` are the sandbox's, and so only promised of
    its first process: None for any other.
    """

    uid: int
    id_map: IdMap
    no_new_privs: bool
    seccomp_filters: int
    mounts: dict[str, MountRule] | None
    start_time: int | None = None
    limits: LimitsInForce | None = None
    routes: frozenset[str] | None = None
    capabilities: dict[str, int] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    rlimits: dict[str, int] = field(default_factory=dict)


class Gone(Exception):
    """The process is no longer there."""


def read(pid: int, group: Cgroup) -> Facts:
    """Read everything about the sandbox whose first process is `pid`; Gone when that process ends meanwhile."""
    try:
        return _read_all(pid, group)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Gone(f"process {pid} ended") from error


def _read_all(pid: int, group: Cgroup) -> Facts:
    proc = f"/proc/{pid}"
    status = dict(line.split(":\t", 1) for line in _lines(f"{proc}/status") if ":\t" in line)
    mounts = tuple(_mount(line) for line in _lines(f"{proc}/mountinfo"))
    processes = tuple(_family(pid))
    root, here = os.stat(f"{proc}/root"), os.stat(f"{proc}/cwd")  # noqa: PTH116 - read by the dozen for every start
    return Facts(
        pid=pid,
        start_time=linux.process_start_time(pid) or 0,
        uids=_numbers(status["Uid"]),
        gids=_numbers(status["Gid"]),
        groups=_numbers(status["Groups"]),
        uid_map=_id_map(f"{proc}/uid_map"),
        gid_map=_id_map(f"{proc}/gid_map"),
        capabilities={name: int(status[name], 16) for name in CAPABILITY_SETS},
        no_new_privs=status["NoNewPrivs"] == "1",
        seccomp_mode=int(status["Seccomp"]),
        seccomp_filters=int(status.get("Seccomp_filters", "0")),
        shared=tuple(name for name in NAMESPACES if _same_namespace(pid, name)),
        mounts=mounts,
        root_device=_device(root),
        at_root=(root.st_dev, root.st_ino) == (here.st_dev, here.st_ino),
        processes=processes,
        strays=_strays(processes, group),
        limits=limits.in_force(group),
        interfaces=tuple(line.split(":")[0].strip() for line in _lines(f"{proc}/net/dev")[2:]),
        routes=frozenset(_routes(_lines(f"{proc}/net/fib_trie"))),
        rlimits=_rlimits(_lines(f"{proc}/limits")),
        outside=tuple(_outside(proc, frozenset(mount.id for mount in mounts))),
    )


def _lines(path: str) -> list[str]:
    return read_kernel_file(path).splitlines()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def _id_map(path: str) -> IdMap:
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in map(str.split, _lines(path)))


def _same_namespace(pid: int, name: str) -> bool:
    return _namespace(str(pid), name) == _namespace("self", name)


def _namespace(pid: str, name: str) -> tuple[int, int]:
    info = os.stat(f"/proc/{pid}/ns/{name}")  # noqa: PTH116
    return info.st_dev, info.st_ino


@functools.lru_cache(maxsize=256)
def _options(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def _mount(line: str) -> Mount:
    left, _, right = line.partition(" - ")
    number, _parent, device, root, point, options = left.split()[:6]
    kind, source, details = right.split(" ", 2)
    return Mount(number, device, root, point, _options(options), kind, source, details)


def _device(info: os.stat_result) -> str:
    return f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}"


def _family(pid: int) -> Iterator[int]:
    """Yield the process and all its descendants: in a pid namespace everybody descends from the first."""
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread or a child that ended meanwhile
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are all that is wanted
            yield from _children(pid, task)


def _children(pid: int, task: str) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in read_kernel_file(f"/proc/{pid}/task/{task}/children").split():
            yield from _family(int(child))


def _strays(processes: tuple[int, ...], group: Cgroup) -> tuple[int, ...]:
    family = set(processes)
    odd: set[int] = set()
    for members in limits.members(group):
        odd |= family ^ members
    return tuple(sorted(odd))


def _routes(lines: list[str]) -> Iterator[str]:
    """Yield the IPv4 routes of all tables, such as `127.0.0.0/8 host LOCAL`."""
    place = ""
    for words in map(str.split, lines):
        if words[0] == "|--":
            place = words[1]
        elif words[0].startswith("/"):
            yield f"{place}{' '.join(words)}"


def _rlimits(lines: list[str]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for name, title in RLIMITS.items():
        words = next((line[len(title) :].split() for line in lines if line.startswith(title)), ["", "unlimited"])
        found[name] = int(words[1]) if words[1].isdigit() else None
    return found


def _outside(proc: str, mounts: frozenset[str]) -> Iterator[str]:
    """Yield the targets of the descriptors that lead out of the process's own mount table."""
    for number in os.listdir(f"{proc}/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"{proc}/fd/{number}")  # noqa: PTH115 - the kernel's text, nothing is opened
            if target.startswith(_ANONYMOUS):
                continue
            about = _lines(f"{proc}/fdinfo/{number}")
        except FileNotFoundError:  # closed meanwhile
            continue
        mount = next((line.split()[1] for line in about if line.startswith("mnt_id:")), "")
        if mount not in mounts:
            yield f"{number} -> {target}"


def mismatches(facts: Facts, expected: Expected) -> list[str]:
    """Return one sentence for each promise that was not kept, with what was expected and what was found."""
    found = [*_of_process(facts, expected), *_of_walls(facts)]
    if expected.mounts is not None:
        found += _of_mounts(facts, expected, expected.mounts)
    if expected.limits is not None:
        found += [*_of_first(facts, expected), *_of_limits(facts.limits, expected.limits)]
    return found


def _differ(what: str, wanted: object, found: object) -> list[str]:
    return [] if wanted == found else [f"{what}: expected {wanted}, found {found}"]


def _of_process(facts: Facts, expected: Expected) -> Iterator[str]:
    yield from _differ("user ids", (expected.uid,) * 4, facts.uids)
    yield from _differ("group ids", (expected.uid,) * 4, facts.gids)
    yield from _differ("further groups", (), facts.groups)
    yield from _differ("uid map", expected.id_map, facts.uid_map)
    yield from _differ("gid map", expected.id_map, facts.gid_map)
    for name, mask in expected.capabilities.items():
        yield from _differ(name, f"{mask:016x}", f"{facts.capabilities[name]:016x}")
    yield from _differ("no_new_privs", expected.no_new_privs, facts.no_new_privs)
    if expected.seccomp_filters:
        yield from _differ("seccomp mode", _SECCOMP_FILTER, facts.seccomp_mode)
    if facts.seccomp_filters < expected.seccomp_filters:
        yield f"seccomp filters: expected at least {expected.seccomp_filters}, found {facts.seccomp_filters}"
    for name, most in expected.rlimits.items():
        found = facts.rlimits[name]
        if found is None or found > most:
            yield f"{name}: expected at most {most}, found {'unlimited' if found is None else found}"


def _of_first(facts: Facts, expected: Expected) -> Iterator[str]:
    yield from _differ("start time", expected.start_time, facts.start_time)
    if expected.routes is not None:
        yield from _differ("missing routes", [], sorted(expected.routes - facts.routes))
        yield from _differ("further routes", [], sorted(facts.routes - expected.routes))
    yield from _differ("descriptors that lead outside", (), facts.outside)
    yield from _differ("processes in only one of control group and pid namespace", (), facts.strays)


def _of_walls(facts: Facts) -> Iterator[str]:
    for name in facts.shared:
        yield f"{name} namespace: expected one of its own, found the node's"
    yield from _differ("network interfaces", ("lo",), facts.interfaces)


def _of_mounts(facts: Facts, expected: Expected, rules: dict[str, MountRule]) -> Iterator[str]:
    found = {mount.point: mount for mount in facts.mounts}
    for mount in facts.mounts:
        rule = rules.get(mount.point)
        if rule is not None:
            yield from _of_mount(mount, rule)
        elif not _is_cover(mount):
            yield f"mount on {mount.point}: expected none, found {mount.kind} {mount.source}{mount.root}"
    for point, rule in rules.items():
        if point not in found and not rule.optional:
            yield f"mount on {point}: expected {'/'.join(sorted(rule.kinds))}, found none"
    for path in expected.masked:
        # Not every kernel has each of them, and what is not there can't be covered.
        if path not in found and os.path.exists(path):  # noqa: PTH110
            yield f"{path}: expected it covered, found it open"
    top = found.get("/")
    yield from _differ("device of the root directory", top.device if top else "a mount of its own", facts.root_device)
    if not facts.at_root:
        yield "working directory: expected the root directory, found another"


def _of_mount(mount: Mount, rule: MountRule) -> Iterator[str]:
    if rule.kinds and mount.kind not in rule.kinds:
        yield f"mount on {mount.point}: expected {'/'.join(sorted(rule.kinds))}, found {mount.kind}"
    if rule.root is not None:
        yield from _differ(f"part that is mounted on {mount.point}", rule.root, mount.root)
    # Layers of its own were named where the host's directories were out of sight.
    if mount.kind == "overlay" and ("=/" in mount.details or ":/" in mount.details):
        yield f"mount on {mount.point}: expected layers of its own, found {mount.details}"
    if missing := rule.options - mount.options:
        wanted, found = (",".join(sorted(options)) for options in (missing, mount.options))
        yield f"mount on {mount.point}: expected {wanted}, found {found}"


def _is_cover(mount: Mount) -> bool:
    """Tell whether a mount only hides or write-protects a part of the sandbox's own /proc or /sys."""
    above = mount.point.split("/", 2)
    if len(above) < 3 or above[1] not in ("proc", "sys"):
        return False
    if mount.kind == "devtmpfs":
        return mount.root == "/null"
    # An empty file system, the empty directory of the stage, the null device of a jail; or the place itself.
    covers = {"tmpfs": ("/", "/empty", "/null"), "proc": (f"/{above[2]}",)}
    return "ro" in mount.options and mount.root in covers.get(mount.kind, ())


def _of_limits(found: LimitsInForce, expected: LimitsInForce) -> Iterator[str]:
    for name, wanted in vars(expected).items():
        yield from _differ(f"limit {name}", wanted, getattr(found, name))
