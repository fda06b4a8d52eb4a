"""The process that prepares sandboxes ahead of time: namespaces, disk, root, listener, first process.

A small, single-threaded parent that the node starts once. For each order it forks a *member*, which leaves the host's
mount and network views step by step and starts the sandbox's first process: through an OCI runtime, after which it
waits at the runtime's exec fifo, or through bubblewrap, after which it is the guest agent and waits for its
configuration. All mounts exist in the member's own mount namespace only, so that no crash leaves one behind on the
host.

Run as `python -m sandboxes.node.zygote FD`, FD being a SOCK_SEQPACKET socket: one message an order, JSON plus two
descriptors (the sandbox's stdin, the sandbox's stdout and stderr). The answer is one line on the latter: `ready`
and the disk's device number, or `error` and why.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sandboxes.node import linux, redirection, sentry, stage
from sandboxes.node.order import FILTER_FD, GUEST_FD, NAMESPACE_FD, READY_FD, USER_ID, Order

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_ORDER_BYTES = 65_536
_BADNESS = "300"


def _listen(order: Order) -> socket.socket:
    """Make the agent's listener where no sandbox can see it; only the gateway's group may connect."""
    path = Path(order.socket_path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The sandbox can read the name that was bound, so it is a relative one.
    os.chdir(path.parent)
    listener.bind(path.name)
    os.chown(path, 0, order.socket_gid)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
    listener.listen(256)
    return listener


def _leave_host(order: Order) -> None:
    """Enter new mount and network namespaces; the network has nothing but `lo`, and belongs to the host's root."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET)
    linux.make_mounts_private()
    for mountpoint in order.hidden_mounts:
        linux.unmount(mountpoint)
    linux.bring_up_loopback()
    if order.network == "transparent":
        redirection.lead_everything_here()
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")


def _start(order: Order, groups: list[int], fds: list[int], execute: Callable[[], NoReturn]) -> int:
    """Run `execute` in a child that is in the sandbox's control groups, has its limits and `fds` from 3 on."""
    member = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        linux.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != member:
            os._exit(1)
        for group in groups:
            os.write(group, b"0")
        # Should the host itself run out of memory, sandboxes go before anything else on it.
        Path("/proc/self/oom_score_adj").write_text(_BADNESS)
        # Here and not by the runtime: runc would need a right over the namespace's owner that not every root has.
        for name, limit in order.limits.items():
            resource.setrlimit(getattr(resource, name), (limit, limit))
        linux.place_descriptors(fds, GUEST_FD)
        execute()
    finally:
        os._exit(127)


def _create_container(order: Order, groups: list[int], listener: socket.socket) -> None:
    """Let the OCI runtime create the container; its first process waits at the runtime's exec fifo."""

    def execute() -> NoReturn:
        os.execve("./runtime", order.command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    pid = _start(order, groups, [listener.fileno()], execute)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise OSError(f"the OCI runtime ended with status {status}")


def _create_jail(order: Order, groups: list[int], listener: socket.socket, userns_fd: int) -> None:
    """Let bubblewrap start the guest agent, which waits for its configuration once it is enclosed.

    Nothing of it ever runs as the host's root: bubblewrap gets the uid that the sandbox's user is outside, and what it
    may do it may do because the user namespace belongs to that uid.
    """
    user = order.uid_base + USER_ID
    ready_read, ready_write = os.pipe()
    with open(order.syscall_filter, "rb") as syscall_filter:  # noqa: PTH123 - a descriptor is all that is wanted

        def execute() -> NoReturn:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            # A change of user takes it back.
            linux.set_parent_death_signal(signal.SIGKILL)
            os.execve(order.command[0], order.command, {})

        fds = {
            GUEST_FD: listener.fileno(),
            READY_FD: ready_write,
            NAMESPACE_FD: userns_fd,
            FILTER_FD: syscall_filter.fileno(),
        }
        monitor = _start(order, groups, [fds[number] for number in sorted(fds)], execute)
    os.close(ready_write)
    is_enclosed = os.read(ready_read, 1) != b""
    # Only waits for the sandbox's end, which is the node's part: the first process becomes the node's child.
    os.kill(monitor, signal.SIGKILL)
    os.waitpid(monitor, 0)
    if not is_enclosed:
        raise OSError("bubblewrap did not start the guest agent")


def _become_member(order: Order) -> str:
    """Prepare one sandbox and return its disk's device; raises OSError when a step fails."""
    # Opened while every tree is still mounted, joined last: what is set up here is not charged to the sandbox.
    groups = [os.open(name, os.O_WRONLY | os.O_CLOEXEC) for name in order.cgroup_files]
    _leave_host(order)
    # Made out here, it would show the host's interfaces to whoever holds it inside.
    listener = _listen(order) if order.kind != "gvisor" else None
    os.chdir(order.directory)
    os.umask(0o022)
    device, userns_fd = stage.build(order)
    if listener is None:
        sentry.create(order, lambda limits, execute: _start(limits, groups, [userns_fd], execute))
    elif order.kind == "jail":
        _create_jail(order, groups, listener, userns_fd)
    else:
        _create_container(order, groups, listener)
    return device


def _start_member(order: Order, fds: list[int]) -> None:
    zygote = os.getpid()
    if os.fork():
        return
    try:
        # A member waits for its children itself; the zygote's handler would take them away.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A half-made member must not go on in directories that the next node gives to somebody else.
        linux.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != zygote:
            os._exit(1)
        os.dup2(fds[0], 0)
        os.dup2(fds[1], 1)
        os.dup2(fds[1], 2)
        os.write(1, f"ready {_become_member(order)}\n".encode())
    except BaseException as error:  # noqa: BLE001 - the last word of a process that must not return into its parent
        with contextlib.suppress(OSError):
            os.write(1, f"error {error}\n".encode())
    finally:
        os._exit(0)


def _reap(_number: int, _frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(channel: socket.socket) -> None:
    """Fork a member for every order until the node closes the channel."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        data, fds, _flags, _address = socket.recv_fds(channel, _MAX_ORDER_BYTES, 2)
        if not data:
            return
        try:
            _start_member(Order.unpack(data), fds)
        except OSError as error:
            os.write(fds[1], f"error {error}\n".encode())
        finally:
            for fd in fds:
                os.close(fd)


def main() -> None:
    """Serve orders on the descriptor named by the first argument."""
    linux.set_parent_death_signal(signal.SIGKILL)
    redirection.prepare()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
