"""The process that prepares sandboxes ahead of time: namespaces, disk, overlay, control groups, listener.

A small, single-threaded parent that the node starts once. For each order it forks a *member*: the member leaves the
host's mount, network and user views step by step, joins its control groups and then waits, as a tiny shell, for one
line on its stdin. That line hands it out: the shell becomes crun. A member whose node dies reads end-of-file and is
gone with all its mounts, which exist only in its own mount namespace; so a crash leaves no mount behind.

Run as `python -m sandboxes.node.zygote FD`, FD being a SOCK_SEQPACKET socket: one message an order, JSON plus two
descriptors (the member's stdin, the member's stdout and stderr).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from sandboxes.node import linux

_MAX_ORDER_BYTES = 16_384
GUEST_FD = 3
_HOSTS = "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# `read` takes one byte at a time, so that what follows the line is left for the guest agent's stdin.
_WAIT_THEN_RUN = 'read -r name && exec "$@" "$name"'


@dataclass(frozen=True)
class Order:
    """What one member is made of. Paths are the host's; ids come from the node's own store, never from a request."""

    directory: str
    template_root: str
    guest_layer: str
    socket_path: str
    socket_gid: int
    uid_base: int
    uid_count: int
    hostname: str
    machine_id: str
    hidden_mounts: tuple[str, ...]
    cgroup_files: tuple[str, ...]
    runtime: tuple[str, ...]

    def pack(self) -> bytes:
        """Return the order as it travels to the zygote."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Order:
        """Read what `pack` wrote."""
        fields = json.loads(data)
        for name in ("hidden_mounts", "cgroup_files", "runtime"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


class UserNamespaces:
    """The id mappings that overlay's lower layers are mounted with: one descriptor per uid range, kept."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}

    def get(self, first: int, count: int) -> int:
        """Return the descriptor for the range that starts at host uid `first`."""
        if first not in self._descriptors:
            self._descriptors[first] = linux.new_user_namespace(first, count)
        return self._descriptors[first]


def _mount_disk() -> str:
    """Mount the member's own disk image; return its device as `major:minor`."""
    device, handle = linux.attach_loop("disk.img")
    try:
        linux.mount(device, "disk", "ext4", linux.MS_NODEV | linux.MS_NOATIME, "noinit_itable,discard")
        number = os.fstat(handle).st_rdev
    finally:
        os.close(handle)
    return f"{os.major(number)}:{os.minor(number)}"


def _write_identity(order: Order) -> None:
    """Give the member a name of its own, in its own upper layer."""
    etc = Path("disk/upper/etc")
    etc.mkdir()
    texts = {
        "hostname": order.hostname + "\n",
        "hosts": _HOSTS.format(hostname=order.hostname),
        "machine-id": order.machine_id + "\n",
        "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    }
    for name, text in texts.items():
        (etc / name).write_text(text)
        os.chown(etc / name, order.uid_base, order.uid_base)
    os.chown(etc, order.uid_base, order.uid_base)


def _mount_root(order: Order, userns_fd: int) -> None:
    """Stack template, guest agent and the member's disk into `rootfs`.

    Paths are relative, so that the sandbox's own mount table shows none of the host's.
    """
    linux.mount_idmapped(order.template_root, "lower", userns_fd)
    linux.mount_idmapped(order.guest_layer, "guest", userns_fd)
    Path("disk/upper").mkdir()
    os.chown("disk/upper", order.uid_base, order.uid_base)
    Path("disk/work").mkdir()
    _write_identity(order)
    linux.mount(
        "overlay",
        "rootfs",
        "overlay",
        linux.MS_NODEV,
        "lowerdir=guest:lower,upperdir=disk/upper,workdir=disk/work",
    )


def _listen(order: Order) -> socket.socket:
    """Make the agent's listener where no sandbox can see it; only the gateway's group may connect."""
    path = Path(order.socket_path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chown(path, 0, order.socket_gid)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
    listener.listen(256)
    return listener


def _join(files: tuple[str, ...]) -> None:
    for name in files:
        Path(name).write_text("0")


def _become_member(order: Order, userns_fd: int) -> None:
    """Turn this process into a prepared member. Does not return."""
    os.chdir(order.directory)
    listener = _listen(order)
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET)
    linux.make_mounts_private()
    for mountpoint in order.hidden_mounts:
        linux.unmount(mountpoint)
    linux.bring_up_loopback()
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
    device = _mount_disk()
    _mount_root(order, userns_fd)
    _join(order.cgroup_files)
    os.dup2(listener.fileno(), GUEST_FD, inheritable=True)
    os.closerange(GUEST_FD + 1, 4096)
    os.umask(0o022)
    os.write(1, f"ready {device}\n".encode())
    os.execve(
        "/bin/sh",
        ["sh", "-c", _WAIT_THEN_RUN, "member", *order.runtime],
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def _start_member(order: Order, fds: list[int], userns: UserNamespaces) -> None:
    userns_fd = userns.get(order.uid_base, order.uid_count)
    if os.fork():
        return
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.dup2(fds[0], 0)
        os.dup2(fds[1], 1)
        os.dup2(fds[1], 2)
        _become_member(order, userns_fd)
    except BaseException as error:  # noqa: BLE001 - the last word of a process that must not return into its parent
        with contextlib.suppress(OSError):
            os.write(1, f"error {error}\n".encode())
    finally:
        os._exit(1)


def serve(channel: socket.socket) -> None:
    """Fork a member for every order until the node closes the channel."""
    # Ended members are nobody's news here: the node sees their output close.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    userns = UserNamespaces()
    while True:
        data, fds, _flags, _address = socket.recv_fds(channel, _MAX_ORDER_BYTES, 2)
        if not data:
            return
        try:
            # new_user_namespace waits for its own helper, which needs the default disposition.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _start_member(Order.unpack(data), fds, userns)
        except OSError as error:
            os.write(fds[1], f"error {error}\n".encode())
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            for fd in fds:
                os.close(fd)


def main() -> None:
    """Serve orders on the descriptor named by the first argument."""
    linux.set_parent_death_signal(signal.SIGKILL)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
