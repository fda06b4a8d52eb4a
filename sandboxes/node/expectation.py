"""What a tier and a profile promise of a sandbox, in the terms in which `attestation` reads it.

Written down a second time on purpose: a promise that was derived from the runtime's own configuration would change
with it, and a slip in that configuration would pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sandboxes.node import attestation
from sandboxes.node.attestation import CAPABILITY_SETS, Expected, MountRule
from sandboxes.node.errors import Quarantined, StartFailed
from sandboxes.node.limits import LimitsInForce, read_kernel_file
from sandboxes.node.order import USER_ID
from sandboxes.node.runtimes import gvisor
from sandboxes.node.slots import UIDS_PER_SLOT, uid_base

if TYPE_CHECKING:
    from sandboxes.node.attestation import IdMap
    from sandboxes.node.cgroups import Cgroup
    from sandboxes.node.runtimes.base import State
    from sandboxes.node.spec import Resources, Spec

_MIB = 1024 * 1024
_OPEN_FILES = 16_384
# The kernel takes no quota below a millisecond in each period of twenty.
_LEAST_CPU_MILLI = 50

# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT, by linux/capability.h.
_TEN_CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18))

_CHOWN = 1 << 0
_NOBODY = 65_534

_INERT = frozenset({"nosuid", "noexec", "nodev"})
_DEVICE_FILES = frozenset({"devtmpfs", "tmpfs"})
_DEVICES = {
    f"/dev/{name}": MountRule(_DEVICE_FILES, frozenset(), root=f"/{name}")
    for name in ("null", "zero", "full", "tty", "random", "urandom")
}
# What tells of the host or could change it. Paths that this kernel does not have need no cover.
_TELLING = (
    "/proc/acpi",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/diskstats",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/modules",
    "/proc/partitions",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/swaps",
    "/proc/sysrq-trigger",
    "/proc/sysvipc",
    "/proc/timer_list",
    "/proc/vmallocinfo",
)
# Root of the user namespace could write there; a jail has nobody who may.
_CHANGING = ("/proc/irq", "/proc/sys")


_LOOPBACK = frozenset({"127.0.0.0/8 host LOCAL", "127.0.0.1/32 host LOCAL", "127.255.255.255/32 link BROADCAST"})
_EVERYTHING_IS_HERE = frozenset({"0.0.0.0/0 host LOCAL", "198.18.0.1/32 host LOCAL"})
# Where the socket of the way out is seen; and, where programs need not know of it, what resolves names.
_DOOR = "/opt/gatehouse/egress"
_RESOLVER = "/etc/resolv.conf"


def _kind(name: str, *options: str) -> MountRule:
    return MountRule(frozenset({name}), frozenset(options))


@dataclass(frozen=True)
class Promise:
    """What every sandbox of a tier and profile has in common. `agent` is the uid of its first process inside."""

    agent: int
    capabilities: dict[str, int]
    no_new_privs: bool
    mounts: dict[str, MountRule]
    covered: tuple[str, ...]


_NONE = dict.fromkeys(CAPABILITY_SETS, 0)
_CONTAINER_MOUNTS = {
    "/proc": _kind("proc", *_INERT),
    "/dev": _kind("tmpfs", "nosuid"),
    "/dev/pts": _kind("devpts", "nosuid", "noexec"),
    "/dev/shm": _kind("tmpfs", *_INERT),  # noqa: S108 - inside
    "/dev/mqueue": _kind("mqueue", *_INERT),
    "/sys": _kind("tmpfs", "ro", *_INERT),
}
_HARDENED_MOUNTS = {
    "/": _kind("overlay", "ro", "nosuid", "nodev"),
    "/home/user": _kind("overlay", "nosuid", "nodev"),
    "/tmp": _kind("tmpfs", *_INERT),  # noqa: S108 - inside
}

_PROMISES = {
    ("container", "workstation"): Promise(
        agent=0,
        capabilities=_NONE | dict.fromkeys(("CapPrm", "CapEff", "CapBnd"), _TEN_CAPABILITIES),
        no_new_privs=False,
        mounts={"/": _kind("overlay", "nodev"), **_CONTAINER_MOUNTS, **_DEVICES},
        covered=(*_TELLING, *_CHANGING),
    ),
    ("container", "hardened"): Promise(
        agent=USER_ID,
        capabilities=_NONE | {"CapBnd": _CHOWN},
        no_new_privs=True,
        mounts={**_HARDENED_MOUNTS, **_CONTAINER_MOUNTS, **_DEVICES},
        covered=(*_TELLING, *_CHANGING),
    ),
    ("process", "hardened"): Promise(
        agent=USER_ID,
        capabilities=_NONE,
        no_new_privs=True,
        mounts={
            **_HARDENED_MOUNTS,
            **_CONTAINER_MOUNTS,
            "/dev": _kind("tmpfs", "ro", "nosuid", "noexec"),
            # bubblewrap gives it no options; the kernel lets nothing but queues be made in it.
            "/dev/mqueue": _kind("mqueue"),
        },
        covered=_TELLING,
    ),
}


def attest(spec: Spec, state: State, group: Cgroup) -> dict[str, Any]:
    """Return what a sandbox that was just started really is, as plain data.

    Raises Quarantined when that is not what was promised.
    """
    try:
        if spec.runtime == gvisor.PROGRAM:
            shown, found = _look_at_gvisor(spec, state, group)
        else:
            shown, found = _look(spec, state, group)
    except attestation.Gone:
        raise StartFailed("The sandbox ended at once.", reason="guest_gone") from None
    if found:
        raise Quarantined(found)
    return shown


def _look(spec: Spec, state: State, group: Cgroup) -> tuple[dict[str, Any], list[str]]:
    if (spec.tier, spec.profile) not in _PROMISES:
        return {}, [f"profile {spec.profile} of tier {spec.tier}: nothing is promised for it"]
    facts = attestation.read(state["pid"], group)
    return facts.as_json(), attestation.mismatches(facts, expected(spec, state))


def _look_at_gvisor(spec: Spec, state: State, group: Cgroup) -> tuple[dict[str, Any], list[str]]:
    """Look at the first process, which only waits, and at the two that stand between the sandbox and the host."""
    first = attestation.read(state["pid"], group)
    shown, found = first.as_json(), attestation.mismatches(first, expected_of_gvisor(spec, state))
    for name, promise in expected_inside_gvisor(spec, state).items():
        pid = next((pid for pid in first.processes if _is_called(pid, name)), None)
        if pid is None:
            found.append(f"{name}: expected a process, found none")
            continue
        facts = attestation.read(pid, group)
        shown[name] = facts.as_json()
        found += [f"{name}: {sentence}" for sentence in attestation.mismatches(facts, promise)]
    return shown, found


def _is_called(pid: int, name: str) -> bool:
    # No code of a tenant has run yet that could have taken the name.
    try:
        return read_kernel_file(f"/proc/{pid}/cmdline").startswith(f"{name}\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def expected(spec: Spec, state: State) -> Expected:
    """Return what the sandbox must be, from what was asked for and the slot that its runtime gave it."""
    promise = _PROMISES[spec.tier, spec.profile]
    base = uid_base(state["slot"])
    return Expected(
        start_time=state["start_time"],
        uid=base + promise.agent,
        id_map=_whole_range(base),
        capabilities=promise.capabilities,
        no_new_privs=promise.no_new_privs,
        seccomp_filters=1,
        mounts=promise.mounts | _network_mounts(spec, state),
        routes=_routes(spec),
        masked=promise.covered,
        limits=_limits(spec.resources),
        rlimits={"RLIMIT_FSIZE": spec.resources.disk_mib * _MIB, **_process_limits(spec.resources)},
    )


def expected_of_gvisor(spec: Spec, state: State) -> Expected:
    """Return what gVisor's first process must be: it waits for the others, and runs nothing of the sandbox."""
    base = uid_base(state["slot"])
    resources = replace(spec.resources, pids=gvisor.tasks_for(spec.resources.pids))
    return Expected(
        start_time=state["start_time"],
        uid=base,
        id_map=_whole_range(base),
        no_new_privs=False,
        seccomp_filters=0,
        mounts=None,
        routes=_routes(spec),
        limits=_limits(resources),
        rlimits=_process_limits(resources),
    )


def expected_inside_gvisor(spec: Spec, state: State) -> dict[str, Expected]:
    """Return what the kernel of the sandbox and the process that opens its files must be, by their names.

    The first has a user namespace in the sandbox's, with one uid, and sees an empty file system; the second sees the
    sandbox's files and, of the host's directories, that of the listener and that of the way out.
    """
    base = uid_base(state["slot"])
    nobody = base + _NOBODY
    return {
        "runsc-sandbox": Expected(
            uid=nobody,
            id_map=((_NOBODY, nobody, 1),),
            no_new_privs=True,
            seccomp_filters=1,
            mounts={"/": _kind("tmpfs", "ro")},
        ),
        "runsc-gofer": Expected(
            uid=base,
            id_map=_whole_range(base),
            no_new_privs=True,
            seccomp_filters=1,
            mounts={
                "/": _kind("overlay", "nodev"),
                gvisor.DOOR: MountRule(frozenset(), _INERT, root=None),
                **_network_mounts(spec, state),
            },
        ),
    }


def _network_mounts(spec: Spec, state: State) -> dict[str, MountRule]:
    """Return what is mounted for the way out: nothing, or exactly the sandbox's own directory, and its resolver."""
    if spec.network_mode == "none":
        return {}
    inert = frozenset({"ro", *_INERT})
    mounts = {_DOOR: MountRule(frozenset({"tmpfs"}), inert, root=f"/{state['slot']}")}
    if spec.network_mode == "transparent":
        mounts[_RESOLVER] = MountRule(frozenset({"tmpfs"}), inert, root="/resolv.conf")
    return mounts


def _routes(spec: Spec) -> frozenset[str]:
    return _LOOPBACK | _EVERYTHING_IS_HERE if spec.network_mode == "transparent" else _LOOPBACK


def _process_limits(resources: Resources) -> dict[str, int]:
    return {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": _OPEN_FILES, "RLIMIT_NPROC": resources.pids}


def _whole_range(base: int) -> IdMap:
    return ((0, base, UIDS_PER_SLOT),)


def _limits(resources: Resources) -> LimitsInForce:
    return LimitsInForce(
        memory_bytes=resources.memory_mib * _MIB,
        swap_bytes=0,
        pids=resources.pids,
        cpu_milli=max(_LEAST_CPU_MILLI, resources.cpu_milli),
    )
