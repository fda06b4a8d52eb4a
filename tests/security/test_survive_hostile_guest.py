"""Whatever root inside a sandbox does to it, the host, the node and the neighbour go on, and its end leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sandboxes.node import linux
from sandboxes.node.errors import StartFailed
from tests.node.rig import ROOT, eventually, leftovers, loop_devices_of, processes_of
from tests.security.conftest import with_root

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.security.conftest import Place
    from tests.security.inside import Inside

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MIB = 2**20


@pytest_asyncio.fixture(loop_scope="module")
async def doomed(place: Place) -> AsyncIterator[Inside]:
    """Return a sandbox of Evil Corp that one test may wreck; after its end nothing of it is on the host."""
    resources = {"cpu_milli": 700, "memory_mib": 192, "disk_mib": 32, "pids": 96}
    inside = await place.sandbox(resources=resources)
    slot = str(inside.sandbox.state["slot"])
    yield inside
    if inside.sandbox.spec.id in place.rig.keeper.sandboxes:
        await place.end(inside)
    await eventually(lambda: not any(slot in names for names in leftovers(place.home).values()) or None)
    assert Path(inside.socket_path).exists() is False


async def all_is_well(place: Place, *, within_s: float = 8.0) -> None:
    """The neighbour runs a command, and the node starts and ends another sandbox, in a bearable time."""
    began = time.monotonic()
    assert await place.acme.still_works()
    other = await place.sandbox()
    assert await other.still_works()
    assert await place.end(other) == "killed"
    assert time.monotonic() - began < within_s


async def cpu_share(seconds: float) -> float:
    """Return which part of one processor this process used in the next `seconds`: the node runs in it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    await asyncio.sleep(seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / (time.monotonic() - began)


# --- taking all there is


@with_root
async def test_a_fork_bomb_of_many_users(place: Place, doomed: Inside) -> None:
    bomb = asyncio.create_task(
        doomed.python("""
end = time.time() + 1.2
def bomb(user):
    os.setuid(user)
    while time.time() < end:
        attempt(os.fork)
    os._exit(0)
for user in range(2000, 2008):
    attempt(lambda: os.fork() or bomb(user))
time.sleep(1.4)
answer("over")
""")
    )
    await asyncio.sleep(0.3)
    assert await cpu_share(0.5) < 0.25
    await all_is_well(place)
    assert await bomb == "over"
    stats = doomed.sandbox.runtime.stats(doomed.sandbox.state)
    assert stats.pids_refused > 0
    await eventually(lambda: doomed.sandbox.runtime.stats(doomed.sandbox.state).pids < 40 or None)
    assert await doomed.still_works()


async def test_a_memory_bomb(place: Place, doomed: Inside) -> None:
    done = await doomed.shell("python3 -c 'kept = []\nwhile True: kept.append(bytearray(1 << 22))'")
    assert done.exit_code == -1
    await all_is_well(place)
    assert await doomed.still_works()
    assert doomed.sandbox.runtime.stats(doomed.sandbox.state).oom_kills > 0
    await eventually(lambda: "limit.memory" in place.rig.codes(doomed.sandbox.spec.id) or None)


async def test_a_full_disk(place: Place, doomed: Inside) -> None:
    size = doomed.sandbox.spec.resources.disk_mib * _MIB
    done = await doomed.shell("for n in 1 2 3; do dd if=/dev/zero of=/home/user/fill$n bs=1M count=24; done; sync -f ~")
    assert "No space left on device" in done.stderr
    assert doomed.sandbox.runtime.disk_used_bytes(doomed.sandbox.state) <= size
    assert await place.acme.text("head -c 1000000 /dev/zero >/tmp/x && rm /tmp/x && echo ok") == "ok\n"
    assert await doomed.still_works()
    await all_is_well(place)


async def test_a_file_larger_than_the_disk(doomed: Inside) -> None:
    answered = await doomed.python("""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = os.open("/tmp/sparse", os.O_CREAT | os.O_RDWR)
answer([attempt(lambda: os.ftruncate(file, 1 << 40)), attempt(lambda: os.pwrite(file, b"x", 1 << 40))])
""")
    assert answered == ["EFBIG", "EFBIG"]


async def test_a_directory_of_countless_names(place: Place, doomed: Inside) -> None:
    made, ended = await doomed.python("""
import itertools
os.mkdir("/home/user/many")
for number in itertools.count():
    if (ended := attempt(lambda: os.close(os.open(f"/home/user/many/{number}", os.O_CREAT)))) != "done":
        break
answer([number, ended])
""")
    assert ended == "ENOSPC"
    assert 1000 < made < 40_000
    assert await doomed.still_works()
    await all_is_well(place)


async def test_all_descriptors(place: Place, doomed: Inside) -> None:
    answered = await doomed.python("""
def hog():
    kept = []
    while (ended := attempt(lambda: kept.append(os.open("/dev/null", os.O_RDONLY)))) == "done":
        pass
    return f"{len(kept)} {ended}"
answer([apart(hog) for _ in range(2)])
""")
    assert {line.split()[1] for line in answered} == {"EMFILE"}
    assert all(int(line.split()[0]) <= 16_384 for line in answered)
    await all_is_well(place)


async def test_a_flood_of_zombies(place: Place, doomed: Inside) -> None:
    await doomed.python("""
for _ in range(12):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.2)
        os._exit(0)
answer(None)
""")
    await eventually(lambda: len(place.rig.pids(doomed.sandbox)) == 1 or None)
    assert await doomed.text("ps ax -o stat= | grep -c Z || true") == "0\n"


# --- attacking the guest agent and what belongs to it


@pytest.mark.parametrize("name", ["KILL", "STOP", "TSTP", "TERM", "INT", "HUP", "QUIT", "USR1", "PIPE"])
async def test_the_first_process_outlives_signals(place: Place, name: str) -> None:
    await place.mallory.shell(f"kill -{name} 1")
    assert await place.mallory.still_works()


async def test_a_signal_that_does_end_it_ends_this_sandbox_alone(place: Place, doomed: Inside) -> None:
    with contextlib.suppress(ConnectionError):
        await doomed.shell("kill -SEGV 1; sleep 5")
    await eventually(lambda: "sandbox.ended" in place.rig.codes(doomed.sandbox.spec.id) or None)
    assert place.rig.events(doomed.sandbox.spec.id)[-1]["details"]["reason"] == "guest_exited"
    await all_is_well(place)


async def test_killing_everything_leaves_the_guest_agent(doomed: Inside) -> None:
    await doomed.shell("kill -KILL -1")
    assert await doomed.still_works()


@with_root
async def test_a_replaced_guest_agent_is_replaced_nowhere_else(place: Place, doomed: Inside) -> None:
    layer = place.home / "node" / "guest-layer" / "opt" / "gatehouse" / "guest"
    before = _digest(layer)
    await doomed.text("cp /bin/true /tmp/evil && mv /tmp/evil /opt/gatehouse/guest && rm -rf /usr/bin/sudo /etc/passwd")
    assert _digest(layer) == before == _digest(ROOT / "sandboxes" / "guest" / "bin" / "gatehouse-guest")
    assert await place.acme.text("sha256sum </opt/gatehouse/guest | cut -c1-64") == f"{before}\n"
    await all_is_well(place)


async def test_the_running_guest_agent_can_not_be_written_over(doomed: Inside) -> None:
    refusals = await doomed.python("""
answer([attempt(lambda: open(path, "r+b")) for path in ("/proc/1/exe", "/proc/self/exe")])
""")
    # Its own copy would be what changes; the one that runs comes from a read-only layer.
    assert refusals[0] in (("ETXTBSY", "done") if doomed.user == "root" else ("EROFS", "EACCES"))
    assert await doomed.still_works()


async def test_links_in_place_of_directories_lead_the_node_nowhere(place: Place, doomed: Inside) -> None:
    victim = place.home / "victim"
    victim.mkdir()
    (victim / "file").write_text("kept")
    socket_before = Path(doomed.socket_path).lstat()
    await doomed.shell(
        f"for d in /run /tmp /home/user /srv /opt/gatehouse /var/tmp /etc; do rm -rf $d; ln -s {victim} $d; done; "
        f"for d in /run /tmp /srv; do rm -rf $d; ln -s / $d; done"
    )
    socket_after = Path(doomed.socket_path).lstat()
    assert (socket_before.st_ino, socket_before.st_mode) == (socket_after.st_ino, socket_after.st_mode)
    assert await place.end(doomed) == "killed"
    assert (victim / "file").read_text() == "kept"
    await all_is_well(place)


@with_root
async def test_its_listener_can_not_be_taken_by_others_inside(place: Place) -> None:
    program = """
found = [int(fd) for fd in os.listdir("/proc/1/fd") if os.readlink(f"/proc/1/fd/{fd}").startswith("socket:")]
answer([[attempt(lambda: os.open(f"/proc/1/fd/{fd}", os.O_RDWR)), call(438, os.pidfd_open(1), fd, 0)] for fd in found])
"""
    answered = await place.mallory.python(program)
    assert answered
    assert all(refusals == ["ENXIO", "EPERM"] for refusals in answered)


# --- a guest agent that is hostile itself

_HOSTILE = """#!/usr/bin/python3
import array, ctypes, fcntl, json, os, socket, struct, sys, time
sys.stdin.read()
listener = socket.socket(fileno=3)
def rename(name):
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
def interfaces(one):
    room = array.array("B", bytes(4096))
    request = struct.pack("iL", 4096, room.buffer_info()[0])
    length = struct.unpack("iL", fcntl.ioctl(one.fileno(), 0x8912, request))[0]
    return [room.tobytes()[at : at + 16].split(b"\\0")[0].decode() for at in range(0, length, 40)]
def serve(answer=b"HTTP/1.1 204 No Content\\r\\n\\r\\n"):
    while True:
        connection, _ = listener.accept()
        connection.recv(4096)
        try:
            connection.sendall(answer)
        except OSError:
            pass
        connection.close()
"""

# What it does, and how the start ends.
LIARS = {
    "a line that never ends": ("serve(b'HTTP/1.1 204 ' + b'x' * (8 << 20))", "guest_silent"),
    "another status": ("serve(b'HTTP/1.1 500 Oops\\r\\n\\r\\n')", "guest_silent"),
    "garbage": ("serve(bytes(range(256)) * 1000)", "guest_silent"),
    "nothing": ("serve(b'')", "guest_silent"),
    "its own end": ("sys.exit(3)", "guest_silent"),
    "a closed listener": ("listener.close(); time.sleep(60)", "guest_silent"),
    "a flood on its way": ("\nwhile True: os.write(1, b'ready 7:0\\nerror x\\n' * 3000)", "guest_timeout"),
    "silence": ("time.sleep(60)", "guest_timeout"),
}


@pytest_asyncio.fixture(loop_scope="module")
async def hostile(place: Place) -> AsyncIterator[Place]:
    """Return the place; sandboxes that start in the test get the guest agent that it chooses."""
    yield place
    place.rig.use_real_guest()


@pytest.mark.parametrize("what", LIARS)
async def test_a_guest_that_answers_the_node_with(hostile: Place, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, reason = LIARS[what]
    if reason == "guest_timeout":
        monkeypatch.setattr("sandboxes.node.runtimes.prepared._START_TIMEOUT_S", 1.0)
    hostile.rig.use_guest(_HOSTILE + program)
    before = {kind: len(names) for kind, names in leftovers(hostile.home).items()}
    with pytest.raises(StartFailed) as refusal:
        await hostile.sandbox()
    assert refusal.value.details["reason"] == reason
    assert len(str(refusal.value)) < 1000
    await eventually(lambda: {kind: len(names) for kind, names in leftovers(hostile.home).items()} == before or None)
    assert await hostile.acme.still_works()


@pytest.mark.parametrize("name", [b"\xff\xfe", b") R 1 1 (", b"a\nNSpid:\t1", b"\n\n\n"])
async def test_a_first_process_with_an_odd_name_is_found_and_ended(hostile: Place, name: bytes) -> None:
    hostile.rig.use_guest(f"{_HOSTILE}rename({name!r})\nserve()")
    inside = await hostile.sandbox()
    state = inside.sandbox.state
    assert Path(f"/proc/{inside.pid}/comm").read_bytes() == name + b"\n"
    assert linux.process_start_time(inside.pid) == state["start_time"]
    assert linux.is_first_of_pid_namespace(inside.pid)
    assert inside.sandbox.runtime.adopt(state)
    assert await hostile.end(inside) == "killed"
    assert not Path(f"/proc/{inside.pid}").exists()


async def test_a_flood_into_the_node_s_log_pipe(hostile: Place) -> None:
    hostile.rig.use_guest(f"{_HOSTILE}\nif os.fork() == 0:\n    while True: os.write(1, b'x' * 65536)\nserve()")
    inside = await hostile.sandbox()
    runtime: Any = inside.sandbox.runtime
    log = runtime._running[inside.sandbox.state["slot"]].log
    hostile.rig.use_real_guest()
    assert await cpu_share(0.5) < 0.1
    await all_is_well(hostile)
    assert len(log.text) == 8192
    assert sum(map(len, log._tail)) <= 8192 + 65536
    await hostile.end(inside)


async def test_its_sockets_show_it_no_network_of_the_host(hostile: Place) -> None:
    hostile.rig.use_guest(
        f"{_HOSTILE}names = json.dumps(interfaces(listener)).encode()\nserve(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + names)"
    )
    inside = await hostile.sandbox()
    reader, writer = await asyncio.open_unix_connection(inside.socket_path)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await reader.read()).partition(b"\r\n\r\n")[2] == b'["lo"]'
    writer.close()
    await hostile.end(inside)


async def test_descriptors_that_it_sends_along_are_not_kept(hostile: Place) -> None:
    hostile.rig.use_guest(f"""{_HOSTILE}
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    socket.send_fds(connection, [b"HTTP/1.1 204 No Content\\r\\n\\r\\n"], fds)
    connection.close()
    for fd in fds: os.close(fd)
""")
    before = len(list(Path("/proc/self/fd").iterdir()))
    inside = await hostile.sandbox()
    # A handful belong to the new sandbox: its log, its limits, its first process.
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 16
    await hostile.end(inside)


async def test_an_environment_that_fills_the_pipe_many_times_over(place: Place) -> None:
    # In JSON each of these characters takes six bytes; nobody reads the pipe before it is full.
    heavy = await asyncio.wait_for(place.sandbox(env={"HEAVY": "\x01" * 131_000}), 5)
    assert await heavy.text('printf %s "$HEAVY" | wc -c') == "131000\n"
    await place.end(heavy)


# --- the end


async def test_nothing_outlives_the_end(place: Place) -> None:
    inside = await place.sandbox()
    await inside.python("""
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in (0, 1, 2):
                os.close(fd)
            while True:
                time.sleep(60)
        os._exit(0)
answer(None)
""")
    stopper = asyncio.create_task(inside.shell("while :; do (while :; do :; done) & done"))
    await asyncio.sleep(0.2)
    pids = place.rig.pids(inside.sandbox)
    assert len(pids) > 20
    assert await place.end(inside) == "killed"
    assert not set(pids) & set(processes_of(place.home))
    with pytest.raises(ConnectionError):
        await stopper
    slot = str(inside.sandbox.state["slot"])
    await eventually(lambda: not any(slot in names for names in leftovers(place.home).values()) or None)
    await eventually(lambda: len(loop_devices_of(place.home)) == len(place.rig.keeper.sandboxes) or None)


async def test_a_uid_range_is_not_used_again_while_its_group_can_not_be_removed(place: Place) -> None:
    inside = await place.sandbox()
    slot = inside.sandbox.state["slot"]
    group = inside.sandbox.runtime.cgroup(inside.sandbox.state)
    # Stands for a process that does not die.
    held = Path(group._controller_dir("pids"), "held")
    held.mkdir()
    try:
        await place.end(inside)
        await asyncio.sleep(2.5)
        assert slot in place.rig.node.maker._slots._used
    finally:
        held.rmdir()
    await place.rig.node.maker.remove(slot)
    assert slot not in place.rig.node.maker._slots._used


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
