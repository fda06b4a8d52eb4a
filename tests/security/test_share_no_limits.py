"""What the kernel counts for the whole host can't be used up by one sandbox: the neighbour has all of it, too."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.node import cgroups
from tests.node.rig import ROOT
from tests.security.conftest import with_root, without_root

if TYPE_CHECKING:
    from tests.security.conftest import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ALL = 10**9

# Each takes as much as it gets, up to `most`, and says how much that was in `count`.
HOGS = {
    "inotify instances": """
count = 0
while count < most and libc.inotify_init1(0) >= 0:
    count += 1
""",
    "queued signals": """
class Value(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("pointer", ctypes.c_void_p)]
libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, Value]
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
count = 0
while count < most and libc.sigqueue(os.getpid(), 40, Value(1)) == 0:
    count += 1
""",
    "message queues": """
count = 0
while count < most and libc.mq_open(b"/q%d" % count, os.O_RDWR | os.O_CREAT, 0o600, None) >= 0:
    count += 1
""",
    "terminals": """
kept = []
while len(kept) < most and attempt(lambda: kept.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))) == "done":
    pass
count = len(kept)
""",
    "locked memory": """
import mmap
kept = []
while attempt(lambda: kept.append(mmap.mmap(-1, 1 << 20))) == "done":
    address = ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20)) < 0:
        break
count = len(kept)
""",
    "pipes with room": """
import fcntl
kept = []
def widen():
    kept.extend(os.pipe())
    fcntl.fcntl(kept[-1], fcntl.F_SETPIPE_SZ, 1 << 20)
while len(kept) < 128 and attempt(widen) == "done":
    pass
count = len(kept)
""",
}


@pytest.mark.parametrize("what", HOGS)
async def test_a_neighbour_takes_no_fewer(place: Place, what: str) -> None:
    modest = f"most = 100\n{HOGS[what]}\nanswer(count)"
    free = await place.acme.python(modest)
    assert free > 0
    async with place.mallory.holding(f"most = {_ALL}\n{HOGS[what]}"):
        assert await place.acme.python(modest) == free


async def test_the_host_s_root_is_not_counted_with_them(place: Place) -> None:
    libc = ctypes.CDLL(None)
    async with place.mallory.holding(f"most = {_ALL}\n{HOGS['inotify instances']}"):
        fds = [libc.inotify_init1(0) for _ in range(3)]
    assert min(fds) > 0
    for fd in fds:
        os.close(fd)


async def test_socket_buffers_are_limited(place: Place) -> None:
    program = """
listener = socket.create_server(("127.0.0.1", 0), backlog=400)
kept, sent = [], 0
for _ in range(200):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    one.connect(listener.getsockname())
    other, _ = listener.accept()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    one.setblocking(False)
    kept += [one, other]
    try:
        while sent < 512 << 20:
            sent += one.send(bytes(65536))
    except BlockingIOError:
        pass
"""
    before = _socket_pages()
    async with place.mallory.holding(program):
        used = (_socket_pages() - before) * 4096
    limit = place.mallory.sandbox.spec.resources.memory_mib * 2**20
    # A quarter of its memory limit where control groups are v1; on v2 they are part of that memory.
    assert used < (limit if cgroups.detect().mode == "v2" else limit // 4) * 1.25


def _socket_pages() -> int:
    found = re.search(r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


async def test_the_host_prefers_to_end_sandboxes_when_it_runs_out_of_memory(place: Place) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in place.rig.pids(place.mallory.sandbox)]
    assert min(scores) >= own + 300


async def test_sync_does_not_write_out_the_host_s_disks(place: Place) -> None:
    canary = ROOT / "var" / f"dirty-{secrets.token_hex(4)}"
    canary.write_bytes(bytes(8 << 20))
    try:
        assert await place.mallory.python("answer(call(162))") == "done"
        assert _dirty_kib() > 4 << 10
    finally:
        canary.unlink()


def _dirty_kib() -> int:
    found = re.search(r"^Dirty:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


@with_root
async def test_names_in_memory_file_systems_are_counted(place: Place) -> None:
    program = """
import itertools
def fill(directory):
    for number in itertools.count():
        if (ended := attempt(lambda: os.close(os.open(f"{directory}/{number}", os.O_CREAT)))) != "done":
            for made in range(number):
                os.unlink(f"{directory}/{made}")
            return [number, ended]
answer([fill("/dev/shm"), fill("/dev")])
"""
    shm, dev = await place.mallory.python(program)
    assert shm[1] == dev[1] == "ENOSPC"
    assert 30_000 < shm[0] <= 32 * 1024
    assert 900 < dev[0] <= 1024


@without_root
async def test_memory_holds_only_so_many_names_and_bytes(place: Place) -> None:
    program = """
def fill(directory, size):
    names = []
    while (ended := attempt(lambda: fill_one(f"{directory}/{len(names)}", size))) == "done":
        names.append(len(names))
    for number in range(len(names) + 1):
        attempt(lambda: os.unlink(f"{directory}/{number}"))
    return [len(names), ended]
def fill_one(path, size):
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(size))
answer([fill("/dev/shm", 0), fill("/tmp", 0), fill("/dev/shm", 1 << 20), fill("/tmp", 1 << 20)])
"""
    found = await place.mallory.python(program)
    assert [ended for _, ended in found] == ["ENOSPC"] * 4
    # A name costs memory too, of which this sandbox has 256 MiB.
    assert [count for count, _ in found[:2]] == [32 * 1024 - 1, 64 * 1024 - 1]
    assert [count for count, _ in found[2:]] in ([64, 100], [63, 99])


@with_root
async def test_memory_file_systems_have_a_size(place: Place) -> None:
    program = """
def fill(*paths):
    size, ended = 0, []
    for path in paths:
        with open(path, "wb", buffering=0) as file:
            ended.append(attempt(lambda: [file.write(bytes(1 << 16)) for _ in range(640)]))
            size += file.tell()
    for path in paths:
        os.unlink(path)
    return [size, ended[-1]]
answer([fill("/dev/shm/one", "/dev/shm/two"), fill("/dev/one")])
"""
    assert await place.mallory.python(program) == [[64 << 20, "ENOSPC"], [64 << 10, "ENOSPC"]]
