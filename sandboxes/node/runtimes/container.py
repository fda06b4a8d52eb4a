"""L2: an OCI bundle started directly by crun, or by runc where crun is not installed. Contract: `base.Runtime`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from sandboxes.node.members import Identity, Launch, MemberMaker
from sandboxes.node.order import GUEST_FD
from sandboxes.node.runtimes import gvisor, oci
from sandboxes.node.runtimes.base import Availability
from sandboxes.node.runtimes.prepared import PreparedRuntime
from sandboxes.node.slots import UIDS_PER_SLOT

if TYPE_CHECKING:
    from sandboxes.node.cgroups import Hierarchies
    from sandboxes.node.spec import Recipe

_PRESERVED_FDS = GUEST_FD - 2


class ContainerRuntime(PreparedRuntime):
    """Starts containers through an OCI runtime."""

    tier = "container"
    profiles = ("workstation", "hardened")

    def __init__(self, maker: MemberMaker, hierarchies: Hierarchies, pool_size: int) -> None:
        super().__init__(maker, _probe(hierarchies), pool_size)
        self._hierarchies = hierarchies

    def _command(self, wanted: str = "") -> tuple[str, ...]:
        program = wanted or next(iter(self._availability.runtimes))
        path = shutil.which(program) or program
        root = f"--root={self._maker.states}"
        create = ("create", "--bundle=.", f"--preserve-fds={_PRESERVED_FDS}")
        if program == "crun":
            return (path, "--cgroup-manager=disabled", root, *create)
        return (path, root, *create)

    def _launch(self, recipe: Recipe, identity: Identity) -> Launch:
        if recipe.runtime == gvisor.PROGRAM:
            return gvisor.launch(recipe, identity)
        command = self._command(recipe.runtime)
        manages_cgroups = "--cgroup-manager=disabled" not in command
        facts = oci.ContainerFacts(
            hostname=identity.hostname,
            uid_base=identity.uid_base,
            uid_count=UIDS_PER_SLOT,
            user_namespace=f"{identity.stage}/{oci.USER_NAMESPACE}",
            cgroups_path=f"/{identity.cgroup_name}" if manages_cgroups else None,
        )
        notes = self._maker.notes(identity.slot)
        return Launch(
            kind="oci",
            command=(*command, notes.name),
            config=json.dumps(oci.PROFILES[recipe.profile](facts)),
            fifo=notes / "exec.fifo",
            hidden_mounts=_hidden_mounts(self._hierarchies, manages_cgroups=manages_cgroups),
            manages_cgroups=manages_cgroups,
        )


def _hidden_mounts(hierarchies: Hierarchies, *, manages_cgroups: bool) -> tuple[str, ...]:
    """Return which trees of control groups a runtime does not get to see."""
    # runc makes a group wherever it can, also where nobody would remove it.
    hidden = list(hierarchies.unused) if manages_cgroups else []
    # crun refuses hosts with both trees; it looks for the second one at this place.
    if hierarchies.mode == "hybrid" and hierarchies.v2 is not None:
        hidden.append(hierarchies.v2)
    return tuple(str(mountpoint) for mountpoint in hidden)


def _probe(hierarchies: Hierarchies) -> Availability:
    if missing := hierarchies.missing():
        return Availability(
            available=False,
            runtimes={},
            reason=f"The kernel offers no {', '.join(missing)} control group.",
            fix="Boot with these controllers enabled.",
        )
    runtimes = {name: version for name in ("crun", "runc") if (version := _version(name)) is not None}
    if not runtimes:  # gVisor alone would make every sandbox one of its own
        return Availability(
            available=False,
            runtimes={},
            reason="Neither crun nor runc is installed.",
            fix="Run `apt-get install crun`.",
        )
    if (version := gvisor.version()) is not None:
        runtimes[gvisor.PROGRAM] = version
    return Availability(available=True, runtimes=runtimes)


def _version(program: str) -> str | None:
    if shutil.which(program) is None:
        return None
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\S+)", text)
    return found.group(1) if found else "unknown"
