"""gVisor as an OCI runtime of tier L2: system calls of the sandbox end in a kernel of its own, written in Go.

Debian's runsc with the platform `ptrace`, which needs neither KVM nor anything else of the host. Starts take some
hundred milliseconds and system calls are slow; what it buys is that code in the sandbox hardly meets the host's kernel.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from sandboxes.node.errors import TierUnavailable
from sandboxes.node.members import Launch
from sandboxes.node.order import DOOR_PLACE
from sandboxes.node.runtimes import oci
from sandboxes.node.sentry import CHANNEL, NOTES
from sandboxes.node.slots import UIDS_PER_SLOT
from sandboxes.node.stage import DOOR as STAGED_DOOR

if TYPE_CHECKING:
    from sandboxes.node.members import Identity
    from sandboxes.node.spec import Recipe

PROGRAM = "runsc"
PROFILE = "workstation"
# Where the sandbox finds the directory in which it makes its listener. Root alone may enter it.
DOOR = "/run/gatehouse"
_LISTENER = f"{DOOR}/guest.sock"
# The first process's limits inside, where the host's do not reach. Memory and processes are the control group's.
_OPEN_FILES = 16_384
_MIB = 1024 * 1024
# Measured: a process inside is one outside, whose calls keep the kernel's own threads busy, and those stay.
_TASKS_OF_ITS_OWN = 64
_TASKS_PER_PROCESS = 16
# gVisor's own /proc and /sys tell nothing of the host; it knows neither user namespaces of ours nor message queues.
_LEFT_OUT = ("/dev/mqueue", "/sys")
_FLAGS = (
    f"--root={NOTES}",
    "--platform=ptrace",
    "--network=none",
    "--ignore-cgroups",
    "--overlay2=none",
)
# Of the host's directories the sandbox sees two, both its own: in one its agent makes its listener, in the other it
# finds the socket of its way out.
_SOCKETS = {"none": "--host-uds=create", "proxy": "--host-uds=all"}


def launch(recipe: Recipe, identity: Identity) -> Launch:
    """Return how one member starts under gVisor; TierUnavailable for a profile that it cannot give."""
    if recipe.profile != PROFILE:
        raise TierUnavailable(
            f"Profile {recipe.profile} is not available with runtime {PROGRAM}; use {PROFILE}.",
            tier=recipe.tier,
            fix=f"Ask for profile {PROFILE}, or leave the runtime to the node.",
        )
    return Launch(
        kind="gvisor",
        command=(
            *(shutil.which(PROGRAM) or PROGRAM, *_FLAGS, _SOCKETS[recipe.network]),
            *("run", "--bundle=.", f"slot-{identity.slot}"),
        ),
        config=json.dumps(_config(recipe, identity)),
        pids=tasks_for(recipe.resources.pids),
    )


def tasks_for(pids: int) -> int:
    """Return how many processes and threads of the host it takes for `pids` of the sandbox."""
    return _TASKS_OF_ITS_OWN + _TASKS_PER_PROCESS * pids


def _config(recipe: Recipe, identity: Identity) -> dict[str, Any]:
    config = oci.workstation(oci.ContainerFacts(identity.hostname, identity.uid_base, UIDS_PER_SLOT))
    config["process"]["args"] = [oci.GUEST_PATH, "listen", _LISTENER]
    config["process"]["rlimits"] = [
        {"type": name, "soft": limit, "hard": limit}
        for name, limit in {
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_FSIZE": recipe.resources.disk_mib * _MIB,
            "RLIMIT_CORE": 0,
        }.items()
    ]
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in _LEFT_OUT]
    config["mounts"].append(
        {"destination": DOOR, "type": "bind", "source": f"{identity.stage}/{CHANNEL}", "options": ["bind", "rw"]}
    )
    if recipe.network != "none":
        place = {"destination": f"/{DOOR_PLACE}", "type": "bind", "source": f"{identity.stage}/{STAGED_DOOR}"}
        config["mounts"].append({**place, "options": ["bind", "ro"]})
    # All are in the sandbox's user namespace already.
    config["linux"] = {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
    }
    return config


def version() -> str | None:
    """Return the version of an installed runsc that can run sandboxes, or None."""
    path = shutil.which(PROGRAM)
    if path is None:
        return None
    told, flags = (
        subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
        for arguments in (["--version"], ["flags"])
    )
    found = re.search(r"version (\S+)", told.stdout)
    # Older ones let no agent listen.
    return found.group(1) if found and "-host-uds" in flags.stdout + flags.stderr else None
