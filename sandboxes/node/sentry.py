"""How a member starts gVisor: a kernel of the sandbox's own, the *sentry*, and a process that opens files, the *gofer*.

Both, and the runtime that waits for them as the first process of the sandbox's pid namespace, live in the sandbox's
user namespace from their first moment: what gets the better of the sentry has the rights of a uid that nobody else
has. Left to itself the runtime would give all sentries of the host one uid, and the host's own pid namespace.

gVisor passes no listener on. The guest agent makes it in a directory of the host that belongs to the sandbox until the
listener is there; then the directory is *sealed*: host's root owns it again, and nothing inside can be replaced.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sandboxes.node import linux
from sandboxes.node.order import GUEST_FD

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.node.order import Order

# On the stage: the directory of the listener, and where the runtime keeps its own notes.
CHANNEL = "channel"
NOTES = "notes"
_WALLS = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
_INERT = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_PATIENCE_S = 15.0
_LOOK_AGAIN_S = 0.005


def create(order: Order, start: Callable[[Order, Callable[[], NoReturn]], int]) -> None:
    """Start the sandbox and return once its agent listens; `start` runs a child with the user namespace as GUEST_FD."""
    directory = os.open(Path(order.socket_path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _open_channel(order, directory)
        # The sentry keeps the sandbox's memory in a file, which a limit for files would cut short.
        limits = {name: limit for name, limit in order.limits.items() if name != "RLIMIT_FSIZE"}
        child = start(replace(order, limits=limits), lambda: _enter_and_run(order))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise OSError("the sandbox's namespaces could not be made")
        patience = _Patience(Path(order.cgroup_files[0]))
        name = Path(order.socket_path).name
        # Not before it listens: the gofer has still something to do with what it has bound.
        while not _listens(directory, name):
            patience.wait()
        seal(directory, name, order.socket_gid)
    finally:
        os.close(directory)


def _open_channel(order: Order, directory: int) -> None:
    os.fchown(directory, order.uid_base, order.uid_base)
    os.fchmod(directory, stat.S_IRWXU)
    for name in (CHANNEL, NOTES):
        Path(name).mkdir()
    os.chown(NOTES, order.uid_base, order.uid_base)
    linux.mount(f"/proc/self/fd/{directory}", CHANNEL, "", linux.MS_BIND)
    linux.mount("none", CHANNEL, "", linux.MS_BIND | linux.MS_REMOUNT | _INERT)


def _enter_and_run(order: Order) -> NoReturn:
    try:
        linux.enter_user_namespace(GUEST_FD)
        os.close(GUEST_FD)
        linux.unshare(_WALLS)
        if os.fork():
            os._exit(0)
        linux.mount("proc", "/proc", "proc", _INERT)
        os.execve("./runtime", order.command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    except OSError as error:
        os.write(2, f"gVisor could not be started: {error}\n".encode())
    os._exit(1)


class _Patience:
    """Waits in small steps for the agent, as long as the sandbox has processes and not for ever."""

    def __init__(self, processes: Path) -> None:
        self._processes = processes
        self._deadline = time.monotonic() + _PATIENCE_S

    def wait(self) -> None:
        """Let a moment pass; OSError when there is nobody left to wait for, or no patience."""
        if not self._processes.read_text().strip():
            raise OSError("gVisor ended before its guest agent listened")
        if time.monotonic() > self._deadline:
            raise OSError("the guest agent did not listen in time")
        time.sleep(_LOOK_AGAIN_S)


def _listens(directory: int, name: str) -> bool:
    """Tell whether the listener is there and takes connections; OSError if it is something else."""
    if not os.listdir(directory):
        return False
    entry = _open_listener(directory, name)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.connect(f"/proc/self/fd/{entry}")
    except ConnectionRefusedError:
        return False
    finally:
        os.close(entry)
    return True


def _open_listener(directory: int, name: str) -> int:
    """Return a descriptor of the listener itself, which follows no link; OSError if there is anything else."""
    if os.listdir(directory) != [name]:
        raise OSError("the sandbox made something else than its listener")
    entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    if not stat.S_ISSOCK(os.fstat(entry).st_mode):
        os.close(entry)
        raise OSError("what the sandbox made is no listener")
    return entry


def seal(directory: int, name: str, gid: int) -> None:
    """Take the directory away from the sandbox and open the listener in it to the group; OSError if it is none.

    The directory first: from then on the sandbox can neither replace what is in it nor add to it, and what is looked
    at is what stays.
    """
    os.fchown(directory, 0, gid)
    os.fchmod(directory, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP)
    entry = _open_listener(directory, name)
    try:
        os.chown(f"/proc/self/fd/{entry}", 0, gid)
        Path(f"/proc/self/fd/{entry}").chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
    finally:
        os.close(entry)
