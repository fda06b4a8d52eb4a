"""From inside a sandbox nothing of the host or of another sandbox can be seen or reached, not even by root there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.node.slots import UIDS_PER_SLOT, uid_base
from tests.security.conftest import with_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.conftest import Place
    from tests.security.inside import Inside

pytestmark = pytest.mark.asyncio(loop_scope="module")

_FIRST_SANDBOX_UID = uid_base(0)
_NS_GET_OWNER_UID = 0xB704
_CONNECT = """
def reach(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        return attempt(lambda: one.connect(address))
"""


def _host_addresses() -> list[str]:
    text = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"inet6? (\S+)/", text)
    return [address for address in found if address != "::1" and not address.startswith(("127.", "fe80:"))]


def _ids_of(inside: Inside, kind: str) -> tuple[int, int, int]:
    first, host_first, count = Path(f"/proc/{inside.pid}/{kind}_map").read_text().split()
    return int(first), int(host_first), int(count)


# --- processes


async def test_only_its_own_processes_are_there(place: Place) -> None:
    marker = f"marker-{secrets.token_hex(4)}"
    async with place.acme.holding(f"name = '{marker}'"):
        assert marker in await place.acme.text("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        found = await place.mallory.text("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /proc | grep -c '^[0-9]'")
    assert marker not in found
    assert int(found.split()[-1]) < 10


async def test_the_host_s_process_numbers_lead_nowhere(place: Place) -> None:
    for pid in (os.getpid(), os.getppid(), place.acme.pid, place.mallory.pid):
        assert (await place.mallory.shell(f"ls /proc/{pid}/root")).exit_code == 2
        assert (await place.mallory.shell(f"kill -0 {pid}")).exit_code == 1


async def test_the_first_process_has_no_parent_and_no_other_root(place: Place) -> None:
    assert await place.mallory.text("awk '/^PPid/ {print $2}' /proc/1/status") == "0\n"
    found = Path(f"/proc/{place.mallory.pid}/root/").stat()
    assert await place.mallory.text("stat -c %d:%i /") == f"{found.st_dev}:{found.st_ino}\n"


# Elsewhere nobody inside may look; the node itself does, before it hands a sandbox out.
@with_root
async def test_the_first_process_holds_no_descriptor_of_the_host(place: Place) -> None:
    names = (await place.mallory.text("readlink /proc/1/fd/* || true")).split()
    shapes = re.compile(r"/dev/null|pipe:\[\d+\]|socket:\[\d+\]|anon_inode:\S+|/proc/1/oom_score_adj")
    assert [name for name in names if not shapes.fullmatch(name)] == []


async def test_commands_get_no_descriptor_but_their_own(place: Place) -> None:
    assert sorted((await place.mallory.text("ls /proc/$$/fd")).split(), key=int)[:3] == ["0", "1", "2"]
    listed = await place.mallory.python("answer(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))")
    assert listed == [0, 1, 2, 3]


# --- environment and names


async def test_the_first_process_s_environment_is_ours_to_the_letter(place: Place) -> None:
    text = Path(f"/proc/{place.mallory.pid}/environ").read_text().replace("\0", "\n")
    names = {line.partition("=")[0] for line in text.splitlines()}
    assert names <= {"PATH", "HOME"}
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" in text


async def test_a_command_s_environment_holds_nothing_of_the_node(place: Place) -> None:
    names = {line.partition("=")[0] for line in (await place.mallory.text("env")).splitlines()}
    expected = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "E2B_SANDBOX", "E2B_SANDBOX_ID", "E2B_TEMPLATE_ID"}
    assert names - expected <= {"PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.parametrize("source", ["hostname", "cat /etc/hostname", "cat /etc/machine-id"])
async def test_each_sandbox_has_a_name_of_its_own(place: Place, source: str) -> None:
    ours, theirs = await place.acme.text(source), await place.mallory.text(source)
    host = subprocess.run(["sh", "-c", source], capture_output=True, text=True, check=False).stdout
    assert len({ours, theirs, host}) == 3
    assert ours.strip()


# --- files and mounts


async def test_the_mount_table_shows_no_path_of_the_host(place: Place) -> None:
    table = await place.mallory.text("cat /proc/self/mountinfo /proc/self/mounts /proc/self/mountstats")
    for path in (str(place.home), place.home.name, " /mnt", "disk.img", "/dev/loop", " cgroup"):
        assert path not in table
    assert re.search(r" - overlay \S+ r[ow],lowerdir=(identity:)?guest:lower", table)


async def test_every_mount_but_proc_s_masks_is_of_its_own(place: Place) -> None:
    ours = {line.split()[2] for line in (await place.acme.text("cat /proc/self/mountinfo")).splitlines()}
    theirs = {line.split()[2] for line in (await place.mallory.text("cat /proc/self/mountinfo")).splitlines()}
    host_devices = {line.split()[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    device = Path("/dev/null").stat().st_dev
    devtmpfs = f"{os.major(device)}:{os.minor(device)}"
    assert ours & theirs <= {devtmpfs}
    assert theirs & host_devices <= {devtmpfs}


async def test_its_root_takes_no_device_nodes(place: Place) -> None:
    roots = [line for line in (await place.mallory.text("cat /proc/self/mounts")).splitlines() if " / " in line]
    assert len(roots) == 1
    assert "nodev" in roots[0].split()[3].split(",")


async def test_files_of_the_host_do_not_exist(place: Place) -> None:
    secret = place.home / "node" / "canary"
    secret.write_text("canary")
    for path in (secret, place.home, Path(__file__), place.home / "run" / "node.sock", Path("/run/crun")):
        assert (await place.mallory.shell(f"stat {shlex.quote(str(path))}")).exit_code == 1


async def test_files_of_a_neighbour_do_not_exist(place: Place) -> None:
    of_root = ("/root", "/run", "/var/tmp") if place.world == "container" else ()
    for directory in ("/home/user", "/tmp", "/dev/shm", *of_root):
        await place.acme.text(f"echo acme > {directory}/canary-of-acme")
        assert (await place.mallory.shell(f"stat {directory}/canary-of-acme")).exit_code == 1


async def test_a_device_node_in_an_archive_is_not_unpacked(place: Place) -> None:
    done = await place.mallory.python("""
import io, subprocess, tarfile
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    for name, kind, major, minor in (("mem", tarfile.CHRTYPE, 1, 1), ("disk", tarfile.BLKTYPE, 7, 0)):
        entry = tarfile.TarInfo(name)
        entry.type, entry.devmajor, entry.devminor, entry.mode = kind, major, minor, 0o666
        tar.addfile(entry)
os.makedirs("/tmp/unpacked", exist_ok=True)
ended = subprocess.run(["tar", "x", "-C", "/tmp/unpacked"], input=archive.getvalue(), capture_output=True)
answer([ended.returncode, sorted(os.listdir("/tmp/unpacked")), ended.stderr.decode()])
""")
    assert done[:2] == [2, []]
    assert re.search(r"mem: Cannot mknod: (Operation not permitted|Permission denied)", done[2])


# --- /sys, /proc, /dev


async def test_sys_is_empty_and_stays_so(place: Place) -> None:
    assert await place.mallory.text("ls -A /sys") == ""
    assert await place.mallory.python("answer(attempt(lambda: os.mkdir('/sys/x')))") == "EROFS"


@pytest.mark.parametrize(
    "name",
    ["cmdline", "diskstats", "interrupts", "kallsyms", "key-users", "keys", "partitions", "swaps", "timer_list"],
)
async def test_what_proc_tells_of_the_host_is_blank(place: Place, name: str) -> None:
    assert await place.mallory.text(f"cat /proc/{name}") == ""


@pytest.mark.parametrize("name", ["acpi", "bus", "fs", "pressure", "sysvipc"])
async def test_what_proc_lists_of_the_host_is_empty(place: Place, name: str) -> None:
    assert await place.mallory.text(f"ls -A /proc/{name}") == ""


@pytest.mark.parametrize("name", ["kcore", "kmsg", "sysrq-trigger", "slabinfo", "pagetypeinfo", "modules", "mem"])
async def test_what_proc_keeps_for_the_host_s_root_is_closed(place: Place, name: str) -> None:
    answered = await place.mallory.python(f"""
path = "/proc/{name}"
blank = os.path.exists(path) and os.stat(path).st_rdev == os.makedev(1, 3)
answer(["blank"] if blank else [attempt(lambda: open(path, mode)) for mode in ("rb", "wb")])
""")
    assert set(answered) <= {"blank", "ENOENT", "EACCES", "EPERM"}


@pytest.mark.parametrize(
    "name",
    [
        "kernel/core_pattern",
        "kernel/hostname",
        "kernel/modprobe",
        "kernel/sysrq",
        "kernel/shmmax",
        "vm/overcommit_memory",
        "vm/drop_caches",
        "fs/binfmt_misc/register",
        "net/ipv4/ip_forward",
        "net/ipv4/ip_unprivileged_port_start",
        "user/max_user_namespaces",
    ],
)
async def test_no_setting_of_the_kernel_can_be_written(place: Place, name: str) -> None:
    path = Path("/proc/sys") / name
    before = path.read_text() if path.exists() and os.access(path, os.R_OK) else None
    answered = await place.mallory.python(f"answer(attempt(lambda: open('{path}', 'w').write('1')))")
    assert answered in ("EROFS", "EACCES", "ENOENT", "EPERM")
    assert before is None or path.read_text() == before


async def test_the_kernel_s_log_is_closed(place: Place) -> None:
    done = await place.mallory.shell("dmesg")
    assert done.exit_code == 1
    assert done.stdout == ""


async def test_dev_holds_what_programs_need_and_nothing_else(place: Place) -> None:
    listed = await place.mallory.text("find /dev ! -type d ! -type l -exec stat -c '%n %a %F %t:%T' {} + | sort")
    assert listed.splitlines() == [
        "/dev/full 666 character special file 1:7",
        "/dev/null 666 character special file 1:3",
        "/dev/pts/ptmx 666 character special file 5:2",
        "/dev/random 666 character special file 1:8",
        "/dev/tty 666 character special file 5:0",
        "/dev/urandom 666 character special file 1:9",
        "/dev/zero 666 character special file 1:5",
    ]
    links = await place.mallory.text("cd /dev && find . -type l -printf '%P -> %l\\n' | sort")
    # crun also makes a link to /proc/kcore, which is masked.
    assert [line for line in links.splitlines() if line != "core -> /proc/kcore"] == [
        "fd -> /proc/self/fd",
        "ptmx -> pts/ptmx",
        "stderr -> /proc/self/fd/2",
        "stdin -> /proc/self/fd/0",
        "stdout -> /proc/self/fd/1",
    ]


@pytest.mark.parametrize("change", ["chmod 777 /dev/null", "chown user /dev/null", "touch -d 2001-01-01 /dev/null"])
async def test_the_host_s_device_nodes_can_not_be_changed(place: Place, change: str) -> None:
    before = Path("/dev/null").stat()
    assert (await place.mallory.shell(change)).exit_code == 1
    after = Path("/dev/null").stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert after.st_mtime > 1_000_000_000


# --- users


async def test_the_ranges_of_uids_are_apart(place: Place) -> None:
    for kind in ("uid", "gid"):
        ours, theirs = _ids_of(place.acme, kind), _ids_of(place.mallory, kind)
        assert ours[0] == theirs[0] == 0
        assert ours[2] == theirs[2] == UIDS_PER_SLOT
        assert min(ours[1], theirs[1]) >= _FIRST_SANDBOX_UID
        assert abs(ours[1] - theirs[1]) >= UIDS_PER_SLOT


async def test_each_namespace_belongs_to_a_uid_of_its_own_sandbox(place: Place) -> None:
    owners, offset = set(), 1000 if place.world == "process" else 0
    for inside in (place.acme, place.mallory):
        with Path(f"/proc/{inside.pid}/ns/user").open() as namespace:
            answer = bytearray(4)
            fcntl.ioctl(namespace, _NS_GET_OWNER_UID, answer)
        owners.add(int.from_bytes(answer, sys.byteorder))
    assert owners == {_ids_of(inside, "uid")[1] + offset for inside in (place.acme, place.mallory)}


async def test_nothing_inside_runs_as_a_user_of_the_host(place: Place) -> None:
    await place.malus.text("sleep 3 >/dev/null 2>&1 &")
    for pid in place.rig.pids(place.mallory.sandbox):
        with contextlib.suppress(FileNotFoundError):
            status = Path(f"/proc/{pid}/status").read_text()
            ids = re.findall(r"^[UG]id:\s+(.+)$", status, re.MULTILINE)
            assert all(int(number) >= _FIRST_SANDBOX_UID for line in ids for number in line.split())


@with_root
async def test_files_belong_to_the_sandbox_s_own_range(place: Place) -> None:
    await place.mallory.text("touch /srv/of-root")
    await place.malus.text("touch /home/user/of-user; cp /bin/true /home/user/s; chmod 6755 /home/user/s")
    base = _ids_of(place.mallory, "uid")[1]
    root = Path(f"/proc/{place.mallory.pid}/root")
    assert (root / "srv/of-root").stat().st_uid == base
    assert (root / "home/user/of-user").stat().st_uid == base + 1000
    assert (root / "home/user/s").stat().st_uid == base + 1000
    assert (root / "usr/bin/sudo").stat().st_uid == base


@with_root
async def test_a_uid_beyond_the_range_does_not_exist(place: Place) -> None:
    assert await place.mallory.python(f"answer(attempt(lambda: os.setuid({UIDS_PER_SLOT})))") == "EINVAL"
    assert await place.mallory.python(f"answer(attempt(lambda: os.chown('/srv', {UIDS_PER_SLOT}, 0)))") == "EINVAL"


@with_root
async def test_capabilities_are_the_few_of_a_workstation(place: Place) -> None:
    status = await place.mallory.text("grep -E '^Cap|^Seccomp:' /proc/self/status")
    found = dict(line.split(":\t") for line in status.splitlines())
    # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT
    assert found["CapBnd"] == found["CapEff"] == found["CapPrm"] == "00000000000405fb"
    assert found["CapInh"] == found["CapAmb"] == "0000000000000000"
    assert found["Seccomp"] == "2"
    assert "CapEff:\t0000000000000000" in await place.malus.text("grep ^CapEff /proc/self/status")


async def test_the_user_can_not_take_over_the_guest_agent(place: Place) -> None:
    for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/fd/1", "/opt/gatehouse/guest"):
        mode = "r+b" if path.endswith(("mem", "guest")) else "rb"
        answered = await place.malus.python(f"answer(attempt(lambda: open('{path}', '{mode}')))")
        assert answered == "EACCES" or (path.startswith("/opt") and answered == "EROFS")


# --- network


@pytest.fixture
def host_listener() -> Iterator[int]:
    """A port that something on the host serves on every address, IPv4 and IPv6."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        yield int(listener.getsockname()[1])


async def test_the_only_interface_is_lo(place: Place) -> None:
    lines = (await place.mallory.text("cat /proc/net/dev")).splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert await place.mallory.python("answer(socket.if_nameindex())") == [[1, "lo"]]
    assert (await place.mallory.text("cat /proc/net/route")).splitlines()[1:] == []


async def test_its_network_is_not_its_own_to_change(place: Place) -> None:
    refusals = await place.mallory.python("""
import fcntl, struct
one = socket.socket()
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
# RTM_NEWLINK of a dummy, and SIOCSIFFLAGS of lo.
body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HH4s", 8, 3, b"d0\\0\\0")
netlink.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
code = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
answer([
    errno.errorcode[-code],
    attempt(lambda: fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0))),
    attempt(lambda: one.setsockopt(socket.SOL_SOCKET, 25, b"eth0\\0")),
])
""")
    assert refusals[0] == "EPERM"
    assert refusals[1] == "EPERM"
    assert refusals[2] in ("EPERM", "ENODEV")


async def test_listeners_of_the_host_are_not_on_its_loopback(place: Place, host_listener: int) -> None:
    answered = await place.mallory.python(f"""{_CONNECT}
answer([reach(socket.AF_INET, ("127.0.0.1", {host_listener})), reach(socket.AF_INET6, ("::1", {host_listener}))])
""")
    assert answered == ["ECONNREFUSED", "ECONNREFUSED"]


async def test_no_address_of_the_host_can_be_reached(place: Place, host_listener: int) -> None:
    targets = [*_host_addresses(), "169.254.169.254", "fd00:ec2::254", "1.1.1.1", "2606:4700:4700::1111", "172.17.0.1"]
    answered = await place.mallory.python(f"""{_CONNECT}
answer({{
    target: reach(socket.AF_INET6 if ":" in target else socket.AF_INET, (target, {host_listener}))
    for target in {targets!r}
}})
""")
    assert answered == dict.fromkeys(targets, "ENETUNREACH")


async def test_no_packet_leaves_by_udp(place: Place) -> None:
    answered = await place.mallory.python("""
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    answer([attempt(lambda: one.sendto(b"x", (host, 53))) for host in ("8.8.8.8", "169.254.169.254", "10.0.0.1")])
""")
    assert answered == ["ENETUNREACH"] * 3


async def test_names_do_not_resolve(place: Place) -> None:
    assert (await place.mallory.shell("getent hosts example.com")).exit_code == 2


async def test_a_neighbour_s_listener_can_not_be_reached(place: Place) -> None:
    async with place.acme.holding("listener = socket.create_server(('', 8765))"):
        answered = await place.mallory.python(f"""{_CONNECT}
answer([reach(socket.AF_INET, (address, 8765)) for address in ("127.0.0.1", "127.0.0.2", "0.0.0.0")])
""")
    assert answered == ["ECONNREFUSED"] * 3


# --- local channels


async def test_abstract_sockets_of_the_host_and_of_a_neighbour_are_not_there(place: Place) -> None:
    name = f"gatehouse-test-{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as host:
        host.bind(f"\0{name}-host")
        host.listen(1)
        program = f"one = socket.socket(socket.AF_UNIX)\none.bind('\\0{name}-acme')\none.listen()"
        async with place.acme.holding(program):
            assert f"@{name}-acme" in await place.acme.text("cat /proc/net/unix")
            answered = await place.mallory.python(f"""{_CONNECT}
answer([reach(socket.AF_UNIX, "\\0{name}-host"), reach(socket.AF_UNIX, "\\0{name}-acme")])
""")
            assert name not in await place.mallory.text("cat /proc/net/unix")
    assert answered == ["ECONNREFUSED", "ECONNREFUSED"]


async def test_the_guest_s_own_listener_has_no_name_inside(place: Place) -> None:
    paths = [line.split()[-1] for line in (await place.mallory.text("cat /proc/net/unix")).splitlines()]
    assert [path for path in paths if "/" in path] == []
    assert await place.mallory.text("find / -xdev -type s 2>/dev/null || true") == ""


async def test_shared_memory_and_queues_of_a_neighbour_are_not_there(place: Place) -> None:
    made = await place.acme.python("""
answer([
    outcome(libc.shmget(4711, 4096, 0o1666)), outcome(libc.msgget(4711, 0o1666)), outcome(libc.semget(4711, 1, 0o1666)),
    outcome(libc.mq_open(b"/acme", os.O_CREAT | os.O_RDWR, 0o666, None)),
])
""")
    assert made == ["done"] * 4
    answered = await place.mallory.python("""
answer([
    outcome(libc.shmget(4711, 4096, 0)), outcome(libc.msgget(4711, 0)), outcome(libc.semget(4711, 1, 0)),
    outcome(libc.mq_open(b"/acme", os.O_RDWR)), os.listdir("/dev/mqueue"),
])
""")
    assert answered == ["ENOENT", "ENOENT", "ENOENT", "ENOENT", []]


async def test_terminals_of_a_neighbour_are_not_there(place: Place) -> None:
    async with place.acme.holding("terminal = os.openpty()"):
        assert await place.acme.text("ls /dev/pts") == "0\nptmx\n"
        assert await place.mallory.text("ls /dev/pts") == "ptmx\n"


async def test_what_is_typed_into_its_own_terminal_stays_there(place: Place) -> None:
    # TIOCSTI: the classic way to type for whoever holds the other end.
    answered = await place.mallory.python("""
import fcntl
master, slave = os.openpty()
answer([attempt(lambda: fcntl.ioctl(fd, 0x5412, b"x")) for fd in (0, slave)])
""")
    assert answered[0] == "ENOTTY"
    assert answered[1] in ("EIO", "EPERM", "done")
