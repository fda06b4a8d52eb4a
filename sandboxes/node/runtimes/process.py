"""L1: the guest agent in a jail that bubblewrap makes: namespaces, one uid, a call filter and Landlock.

Contract: `base.Runtime`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.node import linux
from sandboxes.node.members import Identity, Launch, MemberMaker
from sandboxes.node.order import FILTER_FD, NAMESPACE_FD, USER_HOME, USER_ID
from sandboxes.node.runtimes import oci
from sandboxes.node.runtimes.base import Availability
from sandboxes.node.runtimes.prepared import PreparedRuntime
from sandboxes.node.runtimes.syscallfilter import compile_filter
from sandboxes.node.slots import MAX_SLOTS, UIDS_PER_SLOT, uid_base

if TYPE_CHECKING:
    from sandboxes.node.cgroups import Hierarchies
    from sandboxes.node.spec import Recipe

PROGRAM = "bwrap"
_TRIAL_TIMEOUT_S = 10
# What Landlock lets a jail do: read, write, execute. Other directories below / can be read and executed from.
_ENCLOSURE = (f"/{USER_HOME}=rwx", "/tmp=rw", "/dev=rw", "/dev/mqueue=rw", "/proc=rw", "/sys=r", "/=r")  # noqa: S108 - inside


class ProcessRuntime(PreparedRuntime):
    """Starts jails through bubblewrap."""

    tier = "process"
    profiles = ("hardened",)

    def __init__(self, maker: MemberMaker, hierarchies: Hierarchies, pool_size: int) -> None:
        super().__init__(maker, probe(hierarchies), pool_size)
        self._filter = maker.states.parent / "process.bpf"
        self._masks = tuple(_masks())
        if self._availability.available:
            self._filter.write_bytes(compile_filter())

    def _launch(self, recipe: Recipe, identity: Identity) -> Launch:
        command = (
            shutil.which(PROGRAM) or PROGRAM,
            *("--userns", str(NAMESPACE_FD), "--uid", str(USER_ID), "--gid", str(USER_ID)),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--hostname", identity.hostname),
            # Not --die-with-parent: a sandbox outlives the node that started it.
            *("--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv", "--setenv", "PATH", oci.PATH),
            *("--dev-bind", "rootfs", "/", "--mqueue", "/dev/mqueue", "--proc", "/proc", *self._masks),
            *("--chdir", "/", "--seccomp", str(FILTER_FD), "--"),
            *(oci.GUEST_PATH, "enclose", *_ENCLOSURE),
        )
        return Launch(kind="jail", command=command, syscall_filter=str(self._filter))


def _masks() -> list[str]:
    """Return bubblewrap's arguments that cover what /proc tells of the host."""
    masks: list[str] = []
    for path in (Path(name) for name in oci.MASKED if name.startswith("/proc/")):
        if path.is_dir():
            masks += ["--ro-bind", "empty", str(path)]
        elif path.exists():
            masks += ["--dev-bind", "rootfs/dev/null", str(path)]
    return masks


def probe(hierarchies: Hierarchies) -> Availability:
    """Find out by trying whether this host can run jails."""
    if missing := hierarchies.missing():
        return _unavailable(
            f"The kernel offers no {', '.join(missing)} control group.", "Boot with these controllers enabled."
        )
    program = shutil.which(PROGRAM)
    if program is None:
        return _unavailable("bubblewrap is not installed.", "Run `apt-get install bubblewrap`.")
    if linux.landlock_version() < 1:
        return _unavailable("The kernel has no Landlock.", "Boot a kernel with lsm=landlock.")
    try:
        syscall_filter = compile_filter()
    except OSError as error:
        return _unavailable(f"The call filter can't be compiled: {error}.", "Run `apt-get install libseccomp2`.")
    if complaint := _try(program, syscall_filter):
        return _unavailable(
            f"A trial jail failed: {complaint}.",
            "Run the node outside of containers, on a kernel with user namespaces.",
        )
    return Availability(available=True, runtimes={PROGRAM: _version(program)})


def _unavailable(reason: str, fix: str) -> Availability:
    return Availability(available=False, runtimes={}, reason=reason, fix=fix)


def _try(program: str, syscall_filter: bytes) -> str | None:
    """Run `true` in a jail that is made as those of sandboxes are; return None, or what stood in the way."""
    first = uid_base(MAX_SLOTS - 1)
    user = first + USER_ID
    try:
        namespace = linux.new_user_namespace(first, UIDS_PER_SLOT, owner=user)
    except OSError as error:
        return str(error)
    with open(namespace, "rb"), tempfile.TemporaryFile() as file:  # noqa: PTH123 - closes the descriptor
        file.write(syscall_filter)
        file.seek(0)
        command = (
            *(program, "--userns", str(namespace), "--uid", str(USER_ID), "--gid", str(USER_ID)),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--as-pid-1"),
            *("--ro-bind", "/", "/", "--proc", "/proc", "--seccomp", str(file.fileno()), "--", "true"),
        )
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                user=user,
                group=user,
                extra_groups=[],
                pass_fds=(namespace, file.fileno()),
                timeout=_TRIAL_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return None if done.returncode == 0 else done.stderr.strip()[:300] or f"it ended with status {done.returncode}"


def _version(program: str) -> str:
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d\S*", text)
    return found.group() if found else "unknown"
