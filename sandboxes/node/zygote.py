"""The process that prepares sandboxes ahead of time: namespaces, disk, overlay, listener, container.

A small, single-threaded parent that the node starts once. For each order it forks a *member*, which leaves the host's
mount and network views step by step and lets the OCI runtime create the container. What remains is the container's
first process, which has done everything but start the guest agent: it waits at the runtime's exec fifo. All mounts
exist in the member's own mount namespace only, so that no crash leaves one behind on the host.

Run as `python -m sandboxes.node.zygote FD`, FD being a SOCK_SEQPACKET socket: one message an order, JSON plus two
descriptors (the container's stdin, the container's stdout and stderr). The answer is one line on the latter: `ready`
and the disk's device number, or `error` and why.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from sandboxes.node import linux
from sandboxes.node.runtimes import oci

_MAX_ORDER_BYTES = 65_536
GUEST_FD = 3
_BADNESS = "300"
_HOSTS = "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True)
class Order:
    """What one member is made of. Paths are the host's; ids come from the node's own store, never from a request.

    `limits` are resource limits by their names, in the units of setrlimit(2).
    """

    directory: str
    stage: str
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
    limits: dict[str, int]
    program: str
    runtime: tuple[str, ...]

    def pack(self) -> bytes:
        """Return the order as it travels to the zygote."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Order:
        """Read what `pack` wrote."""
        fields = json.loads(data)
        for name in ("hidden_mounts", "cgroup_files", "runtime"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def _set_stage(order: Order, userns_fd: int) -> None:
    """Cover `stage`, for this member alone, with a small file system that the sandbox's own root may walk through.

    The member's directory is closed to everybody but the host's root, and that is what the runtime no longer is once it
    has entered the user namespace.
    """
    config = Path("config.json").read_bytes()
    linux.mount("tmpfs", order.stage, "tmpfs", linux.MS_NODEV | linux.MS_NOSUID, "mode=755,size=256k")
    for name in ("disk", "rootfs", "lower", "guest"):
        Path(order.stage, name).mkdir()
    Path(order.stage, "config.json").write_bytes(config)
    namespace = Path(order.stage, oci.USER_NAMESPACE)
    namespace.touch()
    linux.mount(f"/proc/self/fd/{userns_fd}", str(namespace), "", linux.MS_BIND)
    # A runtime on a read-only mount knows that no container can overwrite it, and spares itself a protected copy.
    program = Path(order.stage, "runtime")
    program.touch()
    linux.mount(order.program, str(program), "", linux.MS_BIND)
    linux.mount("none", str(program), "", linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY)


def _mount_disk(image: str) -> str:
    """Mount the member's own disk image; return its device as `major:minor`."""
    device, handle = linux.attach_loop(image)
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


def _mount_root(order: Order, lower: int, guest: int) -> None:
    """Stack template, guest agent and the member's disk into `rootfs`.

    Paths are relative, so that the sandbox's own mount table shows none of the host's.
    """
    linux.attach_tree(lower, "lower")
    linux.attach_tree(guest, "guest")
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
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")


def _build_root(order: Order) -> str:
    """Make the container's root on the stage, and the stage the working directory; return the disk's device."""
    userns_fd = linux.new_user_namespace(order.uid_base, order.uid_count)
    # Found by their names while nothing is covered yet.
    lower = linux.idmapped_tree(order.template_root, userns_fd)
    guest = linux.idmapped_tree(order.guest_layer, userns_fd)
    image = os.path.realpath("disk.img")
    _set_stage(order, userns_fd)
    os.chdir(order.stage)
    device = _mount_disk(image)
    _mount_root(order, lower, guest)
    return device


def _create_container(order: Order, groups: list[int], listener: socket.socket) -> int:
    """Run the OCI runtime in the sandbox's control groups; return its exit status."""
    member = os.getpid()
    pid = os.fork()
    if pid == 0:
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
            os.dup2(listener.fileno(), GUEST_FD, inheritable=True)
            os.closerange(GUEST_FD + 1, 4096)
            os.execve("./runtime", list(order.runtime), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        finally:
            os._exit(127)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become_member(order: Order) -> str:
    """Prepare one container and return its disk's device; raises OSError when a step fails."""
    # Opened while every tree is still mounted, joined last: what is set up here is not charged to the sandbox.
    groups = [os.open(name, os.O_WRONLY | os.O_CLOEXEC) for name in order.cgroup_files]
    _leave_host(order)
    # Made out here, it would show the host's interfaces to whoever holds it inside.
    listener = _listen(order)
    os.chdir(order.directory)
    os.umask(0o022)
    device = _build_root(order)
    status = _create_container(order, groups, listener)
    if status != 0:
        raise OSError(f"the OCI runtime ended with status {status}")
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
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
