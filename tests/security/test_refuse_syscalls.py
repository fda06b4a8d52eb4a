"""Whoever is inside asks the kernel for what only the host may do, call by call, and is refused each time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from tests.security.conftest import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")

_NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_TIME_NAMESPACE = 0x80
_NOT_EVEN_ONCE = "PermissionError(1, 'Operation not permitted')"

# Name: (what Mallory's program evaluates, what it must answer). Numbers are those of x86-64.
ATTEMPTS: dict[str, tuple[str, str]] = {
    # Mounts.
    "mount tmpfs": ("call(165, b'none', b'/mnt', b'tmpfs', 0, 0)", "EPERM"),
    "mount bind": ("call(165, b'/proc', b'/mnt', 0, 4096, 0)", "EPERM"),
    "remount root with devices": ("call(165, b'none', b'/', 0, 32, 0)", "EPERM"),
    "remount proc sys writable": ("call(165, b'none', b'/proc/sys', 0, 32 | 4096, 0)", "EPERM"),
    "umount2": ("call(166, b'/proc/sys', 2)", "EPERM"),
    "pivot_root": ("call(155, b'/', b'/mnt')", "EPERM"),
    "open_tree": ("call(428, -100, b'/', 1)", "EPERM"),
    "move_mount": ("call(429, -100, b'/proc', -100, b'/mnt', 0)", "EPERM"),
    "fsopen": ("call(430, b'tmpfs', 0)", "EPERM"),
    "fsconfig": ("call(431, 0, 6, 0, 0, 0)", "EPERM"),
    "fsmount": ("call(432, 0, 0, 0)", "EPERM"),
    "fspick": ("call(433, -100, b'/', 0)", "EPERM"),
    "mount_setattr": ("call(442, -100, b'/', 0, bytes(32), 32)", "EPERM"),
    "statmount": ("call(457, bytes(24), bytes(64), 64, 0)", "EPERM"),
    "listmount": ("call(458, bytes(24), bytes(64), 8, 0)", "EPERM"),
    "swapon": ("call(167, b'/tmp/swap', 0)", "EPERM"),
    "swapoff": ("call(168, b'/tmp/swap')", "EPERM"),
    "quotactl": ("call(179, 0x80000700, 0, 0, 0)", "EPERM"),
    "quotactl_fd": ("call(443, 0, 0x80000700, 0, 0)", "EPERM"),
    # Namespaces.
    "setns": ("call(308, os.open('/proc/self/ns/net', os.O_RDONLY), 0)", "EPERM"),
    "setns by pidfd": ("call(308, os.pidfd_open(1), 0x20000000)", "EPERM"),
    **{f"unshare {name}": (f"call(272, {flag})", "EPERM") for name, flag in _NAMESPACES.items()},
    "unshare time": (f"call(272, {_TIME_NAMESPACE})", "EPERM"),
    **{
        f"clone {name}": (f"call(56, {flag} | signal.SIGCHLD, 0, 0, 0, 0)", "EPERM")
        for name, flag in _NAMESPACES.items()
    },
    "clone3": ("call(435, bytes(88), 88)", "ENOSYS"),
    "chroot and back": ("chroot_and_back()", "root"),
    # Files by handle, devices, attributes.
    "name_to_handle_at": ("call(303, -100, b'/', bytes(136), bytes(4), 0)", "EPERM"),
    "open_by_handle_at": ("call(304, 0, bytes(136), 0)", "EPERM"),
    "mknod character device": ("call(133, b'/tmp/mem', 0o020666, os.makedev(1, 1))", "EPERM"),
    "mknod block device": ("call(133, b'/tmp/disk', 0o060666, os.makedev(7, 0))", "EPERM"),
    "mknodat": ("call(259, -100, b'/tmp/mem2', 0o020666, os.makedev(1, 1))", "EPERM"),
    "file capability": (
        "attempt(lambda: os.setxattr(file(), 'security.capability', bytes.fromhex('0100000200002000') + bytes(12)))",
        "EPERM",
    ),
    "file capability for the host's root": (
        "attempt(lambda: os.setxattr(file(), 'security.capability', bytes.fromhex('0100000300002000') + bytes(16)))",
        "EPERM",
    ),
    "trusted attribute of the overlay": (
        "attempt(lambda: os.setxattr('/srv', 'trusted.overlay.opaque', b'y'))",
        "EPERM",
    ),
    "immutable file": ("attempt(lambda: __import__('fcntl').ioctl(os.open(file(), 0), 0x40086602, b'\\x10'))", "EPERM"),
    "fanotify_init": ("call(300, 0, 0)", "EPERM"),
    # Keys.
    "keyctl": ("call(250, 0, -3, 0)", "EPERM"),
    "add_key": ("call(248, b'user', b'name', b'x', 1, -3)", "EPERM"),
    "request_key": ("call(249, b'user', b'name', 0, -3)", "EPERM"),
    # Other processes.
    "ptrace": ("call(101, 0, 0, 0, 0)", "EPERM"),
    "ptrace pid 1": ("call(101, 16, 1, 0, 0)", "EPERM"),
    "process_vm_readv": ("call(310, 1, 0, 0, 0, 0, 0)", "EPERM"),
    "process_vm_writev": ("call(311, 1, 0, 0, 0, 0, 0)", "EPERM"),
    "process_madvise": ("call(440, 0, 0, 0, 0, 0)", "EPERM"),
    "kcmp": ("call(312, 1, 1, 0, 0, 0)", "EPERM"),
    "pidfd_getfd": ("call(438, os.pidfd_open(1), 4, 0)", "EPERM"),
    "move_pages": ("call(279, 1, 0, 0, 0, 0, 0)", "EPERM"),
    "migrate_pages": ("call(256, 1, 0, 0, 0)", "EPERM"),
    # The kernel itself.
    "bpf": ("call(321, 0, bytes(72), 72)", "EPERM"),
    "perf_event_open": ("call(298, bytes(128), 0, -1, -1, 0)", "EPERM"),
    "userfaultfd": ("call(323, 1)", "EPERM"),
    "io_uring_setup": ("call(425, 8, bytes(120))", "EPERM"),
    "io_uring_enter": ("call(426, 0, 0, 0, 0, 0, 0)", "EPERM"),
    "io_uring_register": ("call(427, 0, 0, 0, 0)", "EPERM"),
    "io_setup": ("call(206, 1, bytes(8))", "ENOSYS"),
    "memfd_secret": ("call(447, 0)", "EPERM"),
    "vmsplice": ("call(278, 1, 0, 0, 0)", "EPERM"),
    "mbind": ("call(237, 0, 0, 0, 0, 0, 0)", "EPERM"),
    "kexec_load": ("call(246, 0, 0, 0, 0)", "EPERM"),
    "kexec_file_load": ("call(320, 0, 0, 0, 0, 0)", "EPERM"),
    "init_module": ("call(175, b'', 0, b'')", "EPERM"),
    "finit_module": ("call(313, 0, b'', 0)", "EPERM"),
    "delete_module": ("call(176, b'loop', 0)", "EPERM"),
    "reboot": ("call(169, 0xfee1dead, 672274793, 0, 0)", "EPERM"),
    "syslog": ("call(103, 3, bytes(64), 64)", "EPERM"),
    "acct": ("call(163, b'/tmp/acct')", "EPERM"),
    "settimeofday": ("call(164, bytes(16), 0)", "EPERM"),
    "clock_settime": ("call(227, 0, bytes(16))", "EPERM"),
    "clock_adjtime": ("call(305, 0, bytes(208))", "EPERM"),
    "adjtimex": ("call(159, bytes(208))", "EPERM"),
    "sethostname": ("call(170, b'host', 4)", "EPERM"),
    "setdomainname": ("call(171, b'host', 4)", "EPERM"),
    "iopl": ("call(172, 3)", "EPERM"),
    "ioperm": ("call(173, 0x70, 2, 1)", "EPERM"),
    "modify_ldt": ("call(154, 0, bytes(64), 64)", "EPERM"),
    "vhangup": ("call(153)", "EPERM"),
    "uselib": ("call(134, b'/bin/sh')", "EPERM"),
    "ustat": ("call(136, 0, bytes(32))", "EPERM"),
    "sysfs": ("call(139, 3)", "EPERM"),
    "lookup_dcookie": ("call(212, 0, bytes(64), 64)", "EPERM"),
    "executable data by personality": ("call(135, 0x0400000)", "EPERM"),
    # Memory that no limit counts.
    "huge pages by mmap": ("call(9, 0, 2 << 20, 3, 0x22 | 0x40000, -1, 0)", "EPERM"),
    "huge pages by memfd": ("call(319, b'x', 4)", "EPERM"),
    "huge pages by shmget": ("call(29, 0, 2 << 20, 0o1600 | 0o4000)", "EPERM"),
    # Sockets.
    "packet socket": ("family(17, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "raw socket": ("family(2, socket.SOCK_RAW, 1)", "EPERM"),
    "raw socket that writes headers": ("family(2, socket.SOCK_RAW, 255)", "EPROTONOSUPPORT"),
    "ICMP socket": ("family(2, socket.SOCK_DGRAM, 1)", "EPERM"),
    "vsock": ("family(40, socket.SOCK_STREAM)", "EAFNOSUPPORT"),
    "crypto of the kernel": ("family(38, socket.SOCK_SEQPACKET)", "EAFNOSUPPORT"),
    "XDP": ("family(44, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "bluetooth": ("family(31, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "AX.25": ("family(3, socket.SOCK_SEQPACKET)", "EPERM"),
    "SCTP": ("family(2, socket.SOCK_STREAM, 132)", "EPROTONOSUPPORT"),
    "MPTCP": ("family(2, socket.SOCK_STREAM, 262)", "EPROTONOSUPPORT"),
    "L2TP": ("family(10, socket.SOCK_DGRAM, 115)", "EPROTONOSUPPORT"),
    "netlink of the audit": ("family(16, socket.SOCK_RAW, 9)", "EPROTONOSUPPORT"),
    "netlink of the firewall": ("family(16, socket.SOCK_RAW, 12)", "EPROTONOSUPPORT"),
    "netlink of events": ("family(16, socket.SOCK_RAW, 15)", "EPROTONOSUPPORT"),
    "netlink of generic families": ("family(16, socket.SOCK_RAW, 16)", "EPROTONOSUPPORT"),
    "family with high bits set": ("call(41, (1 << 32) | 17, 3, 0)", "EAFNOSUPPORT"),
    "socket filter": ("option(1, 26)", "EPERM"),
    "socket filter, high bits of the level set": ("option((1 << 32) | 1, 26)", "EPERM"),
    "socket filter, high bits of the option set": ("option(1, (1 << 32) | 26)", "EPERM"),
    "extended socket filter": ("option(1, 50)", "EPERM"),
    "socket filters of a group": ("[option(1, number) for number in (51, 52)]", "['EPERM', 'EPERM']"),
    # Other ways into the kernel.
    "32-bit call": ("apart(old_call)", "SIGSYS"),
    "x32 call": ("apart(lambda: call(0x40000000 | 39))", "SIGSYS"),
}

# Where nobody is root, some are refused earlier: by the read-only root, or in a jail by Landlock.
ELSEWHERE = {
    "hardened": {"chroot and back": _NOT_EVEN_ONCE, "trusted attribute of the overlay": "EROFS"},
    "process": {
        "chroot and back": _NOT_EVEN_ONCE,
        "trusted attribute of the overlay": "EROFS",
        "mknod character device": "EACCES",
        "mknod block device": "EACCES",
        "mknodat": "EACCES",
    },
}

_PROGRAM = r"""
import mmap

def family(*arguments):
    return attempt(lambda: socket.socket(*arguments).close())

def option(level, number):
    return call(54, socket.socket().fileno(), level, number, bytes(16), 16)

def file():
    path = f"/tmp/file-{os.getpid()}"
    open(path, "w").close()
    return path

def chroot_and_back():
    "The classic way out: a working directory outside of a second root."
    top = os.stat("/")
    os.makedirs("/tmp/second", exist_ok=True)
    outside = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/second")
    os.fchdir(outside)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    found = os.stat("/")
    return "root" if (found.st_dev, found.st_ino) == (top.st_dev, top.st_ino) else "elsewhere"

def old_call():
    "getpid by `int 0x80`, as 32-bit programs make it."
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex("b814000000cd80c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()

answer({name: apart(lambda: eval(text)) for name, text in attempts.items()})
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(place: Place) -> dict[str, str]:
    """Return what the kernel answered to every attempt."""
    texts = json.dumps({name: text for name, (text, _) in ATTEMPTS.items()})
    found: dict[str, str] = await place.mallory.python(f"attempts = json.loads({texts!r})\n{_PROGRAM}")
    return found


@pytest.mark.parametrize("name", ATTEMPTS)
async def test_it_is_refused(place: Place, answers: dict[str, str], name: str) -> None:
    assert answers[name] == ELSEWHERE.get(place.world, {}).get(name, ATTEMPTS[name][1])


# What ordinary programs ask for must go on working beside all that.
ORDINARY = {
    "TCP and UDP, by number or not": "[family(f, t, p) for f in (2, 10) for t, p in ((1, 0), (1, 6), (2, 0), (2, 17))]",
    "unix sockets": "[attempt(lambda: socket.socketpair()), family(1, 1), family(1, 2), family(1, 5)]",
    "list of interfaces": "[attempt(socket.if_nameindex), family(16, 3, 0)]",
    "socket options": """[
        attempt(lambda: socket.socket(10, 1).setsockopt(level, number, 1))
        for level, number in ((1, 2), (1, 6), (1, 8), (1, 9), (1, 15), (1, 60), (6, 1), (6, 4), (0, 1), (41, 26))
    ]""",
    "memory": "[attempt(lambda: mmap.mmap(-1, 1 << 20)), call(319, b'x', 1), call(29, 0, 4096, 0o1600)]",
    "threads and processes": "[apart(lambda: 'done'), attempt(__import__('threading').Thread(target=int).start)]",
    "other users": "[apart(lambda: attempt(lambda: act(1000))) for act in (os.setuid, os.setgid, os.setegid)]",
    "files of others": "[attempt(lambda: os.chown(file(), 1000, 1000)), attempt(lambda: os.mkfifo(file() + '-fifo'))]",
    "attributes": "[attempt(lambda: os.setxattr(file(), 'user.name', b'value'))]",
    "a seccomp filter of its own": "[call(157, 38, 1, 0, 0, 0)]",
    "sync": "[call(162), call(306, os.open('/tmp', os.O_RDONLY))]",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def permissions(place: Place) -> dict[str, list[str]]:
    """Return what the kernel answered to ordinary requests."""
    texts = json.dumps(ORDINARY)
    program = _PROGRAM.replace("apart(lambda: eval(text))", "eval(text)")
    found: dict[str, list[str]] = await place.mallory.python(f"attempts = json.loads({texts!r})\n{program}")
    return found


@pytest.mark.parametrize("name", ORDINARY)
async def test_it_is_given(permissions: dict[str, list[str]], name: str) -> None:
    assert set(permissions[name]) == {"done"}
