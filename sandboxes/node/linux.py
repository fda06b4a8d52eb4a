"""The Linux calls that Python's standard library does not wrap, as thin functions that raise OSError.

Numbers are those of the kernel's headers: calls added since Linux 5.1 have the same number on every architecture.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION_FLAG = 1
_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_AT_EMPTY_PATH = 0x1000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_IDMAP = 0x00100000

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
_SECBIT_NO_SETUID_FIXUP = 0x4

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 0x4

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` (CLONE_NEW*) name for new ones."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, fstype: str, flags: int = 0, options: str = "") -> None:
    """Mount as mount(2) does; relative paths start at the working directory."""
    result = _libc.mount(
        source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount {fstype or source} on {target}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount `target`; by default at once for lookups and for good when its last user is gone."""
    _check(_libc.umount2(target.encode(), ctypes.c_int(flags)), f"unmount {target}")


def make_mounts_private() -> None:
    """Stop mounts of this mount namespace from spreading to any other."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def idmapped_tree(source: str, userns_fd: int) -> int:
    """Return a detached mount of `source`, read-only and without devices, its owners shifted by the user namespace.

    A file of uid 0 in `source` appears as the host uid that the namespace maps its uid 0 to. Needs Linux 5.12.
    `attach_tree` gives it a place.
    """
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    tree = _check(_libc.syscall(_SYS_OPEN_TREE, -100, source.encode(), flags), f"open_tree {source}")
    try:
        attr = _MountAttr(_MOUNT_ATTR_IDMAP | _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NODEV, 0, 0, userns_fd)
        size = ctypes.c_size_t(ctypes.sizeof(attr))
        result = _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attr), size)
        _check(result, "mount_setattr")
    except OSError:
        os.close(tree)
        raise
    return tree


def attach_tree(tree: int, target: str) -> None:
    """Put a detached mount on `target` and close its descriptor."""
    try:
        result = _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", -100, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
        _check(result, f"move_mount {target}")
    finally:
        os.close(tree)


def enter_user_namespace(fd: int) -> None:
    """Enter the user namespace behind the descriptor and become its root, with every right in it and none outside."""
    _check(_libc.setns(fd, ctypes.c_int(CLONE_NEWUSER)), "setns")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def enter_network_namespace(path: str) -> None:
    """Let the calling thread, and no other, be in the network namespace that the file at `path` stands for."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(handle, ctypes.c_int(CLONE_NEWNET)), f"setns {path}")
    finally:
        os.close(handle)


def new_user_namespace(first_id: int, count: int, *, owner: int | None = None) -> int:
    """Return a descriptor of a new user namespace that maps ids 0..count-1 to the host's first_id...

    The namespace lives as long as the descriptor; no process stays in it. It belongs to `owner`, or to `first_id`: the
    kernel counts inotify instances, queued signals, message queues and the like of a namespace for its owner as well,
    and namespaces with one owner would share those limits with each other and with the owner itself. A process of the
    owner's that is outside has every right over it.
    """
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready_read)
        os.close(done_write)
        try:
            # Keeps the capabilities, without which some hosts make no user namespaces.
            _check(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl")
            os.seteuid(first_id if owner is None else owner)
            unshare(CLONE_NEWUSER)
            os.write(ready_write, b"1")
            os.read(done_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(done_read)
    try:
        if os.read(ready_read, 1) != b"1":
            raise OSError("this host makes no user namespace")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"0 {first_id} {count}\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(done_write)
        os.close(ready_read)
        os.waitpid(pid, 0)


def landlock_version() -> int:
    """Return the version of the kernel's Landlock interface; 0 when it has none."""
    version = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)
    return max(0, int(version))


def set_child_subreaper() -> None:
    """Make orphans below this process its children, so that it can wait for them."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def set_parent_death_signal(signal_number: int) -> None:
    """Ask the kernel to send this process a signal when its parent dies."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def place_descriptors(fds: list[int], first: int) -> None:
    """Give the descriptors the numbers from `first` on, kept over execve, and close all above them."""
    # Out of the way first: one may already have a number that another is to get.
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, first + len(fds)) for fd in fds]
    for number, fd in enumerate(aside, first):
        os.dup2(fd, number, inheritable=True)
    os.closerange(first + len(fds), 4096)


def attach_loop(image: str) -> tuple[str, int]:
    """Attach the file `image` to a free loop device that frees itself after its last unmount.

    Returns the device's path and a descriptor that keeps it attached until the caller has mounted it.
    """
    for _attempt in range(64):
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        finally:
            os.close(control)
        device = f"/dev/loop{number}"
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        try:
            # struct loop_config: fd, block_size, then struct loop_info64 (lo_flags at byte 52 of it), reserved.
            config = bytearray(304)
            struct.pack_into("=II", config, 0, backing, 4096)
            struct.pack_into("=I", config, 8 + 52, _LO_FLAGS_AUTOCLEAR)
            fcntl.ioctl(handle, _LOOP_CONFIGURE, bytes(config))
        except OSError as error:
            os.close(handle)
            if error.errno != 16:  # EBUSY: another process took this device between the two calls
                raise
            continue
        else:
            return device, handle
        finally:
            os.close(backing)
    raise OSError("no free loop device after 64 attempts")


def bring_up_loopback() -> None:
    """Set the `lo` interface of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        flags = struct.unpack_from("16xh", answer)[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def peer_uid(sock: socket.socket) -> int:
    """Return the user id of the process at the other end of a connected unix socket."""
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def process_start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or None when there is no such process.

    Together with the pid it names one process for as long as the host is up.
    """
    try:
        # Bytes, here and below: a process names itself, in any bytes it likes.
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def is_first_of_pid_namespace(pid: int) -> bool:
    """Tell whether the process is pid 1 of a pid namespace below ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return False
    ids = next(line.split()[1:] for line in status.split(b"\n") if line.startswith(b"NSpid:"))
    return len(ids) > 1 and ids[-1] == b"1"


def reap(pid: int, *, patience_s: float) -> None:
    """Bury a child that was killed; nothing happens when it is no child of this process or does not end in time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            ended.poll(patience_s * 1_000)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    finally:
        os.close(pidfd)


def boot_id() -> str:
    """Return the id that the kernel drew at this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
