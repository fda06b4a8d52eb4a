"""The OCI configuration of a container, as data built from a few facts. Nothing here comes from a request as text."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxes.node.order import USER_ID

GUEST_PATH = "/opt/gatehouse/guest"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The file on the stage that holds the sandbox's user namespace.
USER_NAMESPACE = "userns"

# What root of a workstation needs to install software and switch users; nothing that reaches the host's kernel.
WORKSTATION_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_SETPCAP",
)

# Besides what container engines mask: what tells of the host's boot, disks and devices or of a neighbour's load.
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/diskstats",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kallsyms",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/partitions",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/swaps",
    "/proc/sysrq-trigger",
    "/proc/sysvipc",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/irq", "/proc/sys")
_NOTHING_SPECIAL = ("nosuid", "noexec", "nodev")
# The kernel has some thousand pseudo terminals for the whole host.
_TERMINALS = "max=128"


@dataclass(frozen=True)
class ContainerFacts:
    """What differs between two containers of the same profile.

    `user_namespace` is the path of the namespace that the container joins; it maps `uid_count` ids from `uid_base`.
    Without one the runtime makes one, and without `cgroups_path` the container stays in its parent's groups.
    """

    hostname: str
    uid_base: int
    uid_count: int
    user_namespace: str | None = None
    cgroups_path: str | None = None


def _mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


@functools.cache
def seccomp() -> dict[str, Any]:
    """Return our allow-list in the OCI format."""
    text = (Path(__file__).parent / "seccomp.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def workstation(facts: ContainerFacts) -> dict[str, Any]:
    """Return config.json for the profile `workstation`: writable root, root and sudo inside the user namespace."""
    capabilities = list(WORKSTATION_CAPABILITIES)
    process = {
        "user": {"uid": 0, "gid": 0},
        # sudo must be able to gain root of the user namespace: the bounding set is what limits it.
        "noNewPrivileges": False,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
    }
    return _config(facts, process, readonly=False)


def hardened(facts: ContainerFacts) -> dict[str, Any]:
    """Return config.json for the profile `hardened`: read-only root, one user without rights.

    The member has mounted home and /tmp below the root already. CHOWN is in the bounding set alone, as with container
    engines that add it for a user who is not root.
    """
    process = {
        "user": {"uid": USER_ID, "gid": USER_ID},
        "noNewPrivileges": True,
        "capabilities": {"bounding": ["CAP_CHOWN"]},
    }
    return _config(facts, process, readonly=True)


PROFILES = {"workstation": workstation, "hardened": hardened}


def _config(facts: ContainerFacts, process: dict[str, Any], *, readonly: bool) -> dict[str, Any]:
    """Return config.json. The network namespace is not in it: it is the member's own, and holds only `lo`."""
    namespaces: list[dict[str, Any]] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup", "user")]
    if facts.user_namespace is not None:
        namespaces[-1]["path"] = facts.user_namespace
    mapping = [{"containerID": 0, "hostID": facts.uid_base, "size": facts.uid_count}]
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "hostname": facts.hostname,
        "root": {"path": "rootfs", "readonly": readonly},
        "process": {
            "terminal": False,
            "args": [GUEST_PATH],
            "env": [f"PATH={PATH}"],
            "cwd": "/",
            **process,
        },
        "mounts": [
            _mount("/proc", "proc", *_NOTHING_SPECIAL),
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=64k", "nr_inodes=1k"),
            _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", _TERMINALS),
            _mount("/dev/shm", "tmpfs", *_NOTHING_SPECIAL, "mode=1777", "size=64m", "nr_inodes=32k"),  # noqa: S108 - inside
            _mount("/dev/mqueue", "mqueue", *_NOTHING_SPECIAL),
            _mount("/sys", "tmpfs", *_NOTHING_SPECIAL, "ro", "mode=555", "size=0"),
        ],
        "linux": {
            "namespaces": namespaces,
            "uidMappings": mapping,
            "gidMappings": mapping,
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "seccomp": seccomp(),
        },
    }
    if facts.cgroups_path is not None:
        config["linux"]["cgroupsPath"] = facts.cgroups_path
    return config
