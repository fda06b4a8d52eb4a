"""What a member mounts: its disk, and from template, guest agent and disk the root that its sandbox gets.

All of it happens in the member's own mount namespace, on a *stage*: a directory of every host, covered by a small
file system of the member's. Paths are relative to it, so that a sandbox's own mount table shows none of the host's.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.node import linux
from sandboxes.node.order import DOOR_PLACE, USER_HOME, USER_ID
from sandboxes.node.runtimes import oci

if TYPE_CHECKING:
    from sandboxes.node.order import Order

_HOSTS = "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_RESOLVER = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
# On the stage: the directory of the way out, for a runtime that mounts it itself.
DOOR = "door"
_SCRATCH = linux.MS_NODEV | linux.MS_NOSUID | linux.MS_NOEXEC
# The kernel has some thousand pseudo terminals for the whole host.
_TERMINALS = "newinstance,ptmxmode=0666,mode=0620,max=128"
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def build(order: Order) -> tuple[str, int]:
    """Make the sandbox's root on the stage, and the stage the working directory.

    Returns the disk's device as `major:minor` and a descriptor of the sandbox's user namespace.
    """
    # Bubblewrap enters it as the sandbox's user; an OCI runtime does so as the host's root.
    owner = order.uid_base + (USER_ID if order.kind == "jail" else 0)
    userns_fd = linux.new_user_namespace(order.uid_base, order.uid_count, owner=owner)
    # Found by their names while nothing is covered yet.
    lower = linux.idmapped_tree(order.template_root, userns_fd)
    guest = linux.idmapped_tree(order.guest_layer, userns_fd)
    image = os.path.realpath("disk.img")
    config = b"" if order.kind == "jail" else Path("config.json").read_bytes()
    linux.mount("tmpfs", order.stage, "tmpfs", linux.MS_NODEV | linux.MS_NOSUID, "mode=755,size=256k")
    os.chdir(order.stage)
    for name in ("disk", "rootfs", "lower", "guest", "identity", "empty"):
        Path(name).mkdir()
    if order.kind != "jail":
        _set_runtime_up(order, userns_fd, config)
    device = _mount_disk(image)
    linux.attach_tree(lower, "lower")
    linux.attach_tree(guest, "guest")
    if order.profile == "hardened":
        _mount_fixed_root(order)
    else:
        _mount_writable_root(order)
    if order.kind == "jail":
        _mount_devices(order)
    if order.door:
        _mount_door(order)
    return device, userns_fd


def _mount_door(order: Order) -> None:
    """Show the sandbox the directory of its way out and nothing beside it, and the resolver that leads there."""
    if order.kind == "gvisor":  # its kernel mounts it itself, and knows no resolver
        place = DOOR
        Path(place).mkdir()
    else:
        # A directory of ours, whatever the template has in its place.
        place = f"rootfs/{DOOR_PLACE}"
    linux.mount(order.door, place, "", linux.MS_BIND)
    linux.mount("none", place, "", linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | _SCRATCH)
    if order.network == "transparent":
        resolver = Path("resolv.conf")
        resolver.write_text(_RESOLVER)
        os.chown(resolver, order.uid_base, order.uid_base)
        linux.mount(str(resolver), "rootfs/etc/resolv.conf", "", linux.MS_BIND)
        flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | _SCRATCH
        linux.mount("none", "rootfs/etc/resolv.conf", "", flags)


def _set_runtime_up(order: Order, userns_fd: int, config: bytes) -> None:
    """Put what an OCI runtime needs where it can still reach it once it has entered the user namespace."""
    Path("config.json").write_bytes(config)
    namespace = Path(oci.USER_NAMESPACE)
    namespace.touch()
    linux.mount(f"/proc/self/fd/{userns_fd}", str(namespace), "", linux.MS_BIND)
    # A runtime on a read-only mount knows that no container can overwrite it, and spares itself a protected copy.
    program = Path("runtime")
    program.touch()
    linux.mount(order.command[0], str(program), "", linux.MS_BIND)
    linux.mount("none", str(program), "", linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY)


def _mount_disk(image: str) -> str:
    """Mount the member's own disk image; return its device as `major:minor`."""
    device, handle = linux.attach_loop(image)
    try:
        linux.mount(device, "disk", "ext4", linux.MS_NODEV | linux.MS_NOATIME, "noinit_itable,discard")
        number = os.fstat(handle).st_rdev
    finally:
        os.close(handle)
    Path("disk/upper").mkdir()
    Path("disk/work").mkdir()
    return f"{os.major(number)}:{os.minor(number)}"


def _write_identity(order: Order, layer: str) -> None:
    """Give the member a name of its own, in a layer of its own."""
    etc = Path(layer, "etc")
    etc.mkdir()
    texts = {
        "hostname": order.hostname + "\n",
        "hosts": _HOSTS.format(hostname=order.hostname),
        "machine-id": order.machine_id + "\n",
        "resolv.conf": _RESOLVER,
    }
    for name, text in texts.items():
        (etc / name).write_text(text)
        os.chown(etc / name, order.uid_base, order.uid_base)
    os.chown(etc, order.uid_base, order.uid_base)
    os.chown(layer, order.uid_base, order.uid_base)


def _mount_writable_root(order: Order) -> None:
    """Stack template, guest agent and the whole of the member's disk into `rootfs`: the profile `workstation`."""
    _write_identity(order, "disk/upper")
    linux.mount(
        "overlay",
        "rootfs",
        "overlay",
        linux.MS_NODEV,
        "lowerdir=guest:lower,upperdir=disk/upper,workdir=disk/work",
    )


def _mount_fixed_root(order: Order) -> None:
    """Make `rootfs` of template and guest agent alone, with the disk below the home: the profile `hardened`."""
    user = order.uid_base + USER_ID
    _write_identity(order, "identity")
    for place in ("tmp", "dev", "proc", "sys"):
        _require_place(order, place)
    home = _require_place(order, USER_HOME)
    flags = linux.MS_NODEV | linux.MS_NOSUID
    linux.mount("overlay", "rootfs", "overlay", flags | linux.MS_RDONLY, "lowerdir=identity:guest:lower")
    # The disk's own root is what is seen of the home.
    Path("disk/upper").chmod(stat.S_IMODE(Path(home).stat().st_mode))
    os.chown("disk/upper", user, user)
    layers = f"lowerdir={home},upperdir=disk/upper,workdir=disk/work"
    linux.mount("overlay", f"rootfs/{USER_HOME}", "overlay", flags, layers)
    _mount_scratch(order, "rootfs/tmp", _SCRATCH, "mode=1777,size=100m,nr_inodes=64k")


def _require_place(order: Order, place: str) -> str:
    """Return a directory in which, or over which, something will be mounted; made where the template has none.

    A link in its stead would lead out of the template: OSError.
    """
    path = Path("lower")
    for part in Path(place).parts:
        path /= part
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return _make_place(order, place)
        if not stat.S_ISDIR(mode):
            raise OSError(f"the template's /{path.relative_to('lower')} is not a directory")
    return str(path)


def _make_place(order: Order, place: str) -> str:
    made = Path("identity", place)
    made.mkdir(parents=True)
    for directory in (made, made.parent):
        os.chown(directory, order.uid_base, order.uid_base)
    return str(made)


def _mount_scratch(order: Order, path: str, flags: int, options: str) -> None:
    """Mount a file system in memory that belongs to the sandbox's root."""
    linux.mount("tmpfs", path, "tmpfs", flags, options)
    # Not by an option: the sandbox could read the host's number in its mount table.
    os.chown(path, order.uid_base, order.uid_base)


def _mount_devices(order: Order) -> None:
    """Make /dev and /sys of a jail: bubblewrap's /dev could be written to, and its terminals are not counted."""
    linux.mount("tmpfs", "rootfs/sys", "tmpfs", _SCRATCH | linux.MS_RDONLY, "mode=555,size=4k")
    flags = linux.MS_NOSUID | linux.MS_NOEXEC
    _mount_scratch(order, "rootfs/dev", flags, "mode=755,size=64k,nr_inodes=64")
    umask = os.umask(0)
    for name, minor in _DEVICES.items():
        os.mknod(f"rootfs/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
    os.mknod("rootfs/dev/tty", stat.S_IFCHR | 0o666, os.makedev(5, 0))
    os.umask(umask)
    for name, target in _DEVICE_LINKS.items():
        Path("rootfs/dev", name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        Path("rootfs/dev", name).mkdir()
    for entry in Path("rootfs/dev").iterdir():
        os.lchown(entry, order.uid_base, order.uid_base)
    linux.mount("devpts", "rootfs/dev/pts", "devpts", flags, _TERMINALS)
    os.chown("rootfs/dev/pts", order.uid_base, order.uid_base)
    _mount_scratch(order, "rootfs/dev/shm", _SCRATCH, "mode=1777,size=64m,nr_inodes=32k")
    linux.mount("none", "rootfs/dev", "", linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | flags)
