"""The profile `hardened`: a root that can't be written, one user without rights, limits that have names."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import limitwatch
from tests.live import UnixConnection
from tests.node import rig

if TYPE_CHECKING:
    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # A jail keeps the same promises as a container.
    pytest.mark.parametrize("world", ["hardened", "process"]),
]

MIB = 1024 * 1024
RESOURCES = {"cpu_milli": 1000, "memory_mib": 64, "disk_mib": 64, "pids": 96}


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limitwatch, "_LOOK_S", 0.1)


async def start(node: Rig, world: str, **changes: Any) -> Sandbox:
    """Start a sandbox with small limits."""
    return await node.start(**(rig.WORLDS[world] | {"resources": RESOURCES} | changes))


def call(sandbox: Sandbox, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Make one request of the guest agent's."""
    connection = UnixConnection(sandbox.runtime.socket_path(sandbox.state))  # type: ignore[arg-type]
    try:
        connection.request(method, path, body, {"Content-Type": "application/octet-stream"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def limits_of(node: Rig, sandbox: Sandbox) -> list[str]:
    """Return which limits were reported."""
    return [code for code in node.codes(sandbox.spec.id) if code.startswith("limit")]


async def test_it_works_as_the_user(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world, env={"GREETING": "hello"})
    done = await clean_node.run(
        sandbox, "echo $GREETING; id -un; id -u; pwd; echo $HOME; ls -A; echo x > file; cat file"
    )
    expected = "hello\nuser\n1000\n/home/user\n/home/user\n.bash_logout\n.bashrc\n.profile\nx\n"
    assert (done.exit_code, done.stdout, done.stderr) == (0, expected, "")


async def test_its_names_are_its_own(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    command = "hostname; cat /etc/hostname; getent hosts $(hostname) | cut -d' ' -f1; cat /etc/machine-id"
    names = (await clean_node.run(sandbox, command)).stdout.split()
    assert names[0] == names[1] == f"sandbox-{names[3][:8]}"
    assert names[2] in ("127.0.0.1", "::1")


async def test_files_go_in_and_out(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    content = bytes(range(256)) * 1000
    for path in ("/home/user/deep/down/data", "/tmp/data"):
        assert call(sandbox, "POST", f"/files?path={path}", content)[0] == 200
        assert call(sandbox, "GET", f"/files?path={path}") == (200, content)
        assert (await clean_node.run(sandbox, f"stat -c %U:%G {path}")).stdout == "user:user\n"


async def test_files_of_root_can_not_be_written(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    for path in ("/etc/passwd", "/usr/bin/env", "/new", "/opt/gatehouse/guest"):
        assert call(sandbox, "POST", f"/files?path={path}", b"x")[0] in (400, 403, 500)
    written = (
        "for path in /etc/passwd /usr/bin/env /new /opt/gatehouse/guest /sys/x; do test -w $path && echo $path; done"
    )
    assert (await clean_node.run(sandbox, written)).stdout == ""
    assert (await clean_node.run(sandbox, "stat -c %U /etc /etc/passwd /usr/bin/env")).stdout == "root\nroot\nroot\n"


async def test_another_user_is_refused(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    for user in ("root", "daemon"):
        done = await clean_node.run(sandbox, "id", user=user)
        assert (done.exit_code, done.stdout) == (None, "")
        assert done.error == f"invalid username: '{user}': this sandbox runs everything as 'user'"
        assert call(sandbox, "GET", f"/files?path=/etc/hostname&username={user}")[0] == 401


async def test_its_root_home_and_tmp_are_mounted_as_promised(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    table = await clean_node.run(
        sandbox, "findmnt -rno TARGET,FSTYPE,OPTIONS / && findmnt -rno OPTIONS /home/user /tmp"
    )
    shown = await clean_node.run(sandbox, "grep -E ' (/|/home/user|/tmp) ' /proc/self/mounts")
    mounts = {line.split()[1]: (line.split()[2], set(line.split()[3].split(","))) for line in shown.stdout.splitlines()}
    assert mounts["/"][0] == mounts["/home/user"][0] == "overlay", table
    assert {"ro", "nosuid", "nodev"} <= mounts["/"][1]
    assert {"rw", "nosuid", "nodev"} <= mounts["/home/user"][1]
    assert mounts["/tmp"][0] == "tmpfs"
    assert {"rw", "nosuid", "nodev", "noexec", "size=102400k"} <= mounts["/tmp"][1]


async def test_what_a_program_needs_is_there(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world, resources=RESOURCES | {"memory_mib": 256})
    program = """
import multiprocessing, os, pty, socket, sqlite3, subprocess, tempfile, threading
assert multiprocessing.Pool(2).map(abs, [-1, 2]) == [1, 2]
assert subprocess.run(["sh", "-c", "exit 3"]).returncode == 3
listener = socket.create_server(("127.0.0.1", 80))
assert socket.create_connection(("127.0.0.1", 80))
master, slave = pty.openpty()
os.write(slave, b"x"); assert os.read(master, 9) == b"x"
sqlite3.connect("/home/user/db").execute("create table t (a)")
os.makedirs("/home/user/a/b"); open("/home/user/a/f", "w").close()
os.rename("/home/user/a/f", "/home/user/a/b/f"); os.link("/home/user/a/b/f", "/home/user/l")
os.symlink("/etc", "/home/user/s"); os.mkfifo("/home/user/p"); os.truncate("/home/user/l", 9)
tempfile.TemporaryFile().write(b"x"); open("/dev/null", "w").write("x")
open("/dev/stdout", "w").write("all is there\\n")
"""
    done = await clean_node.run(sandbox, f"python3 - <<'END'\n{program}\nEND")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "all is there\n", "")


async def test_a_process_that_takes_too_much_memory_is_killed_by_name(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    done = await clean_node.run(sandbox, "python3 -c 'x = bytearray(128 << 20)'; echo $?")
    assert done.stdout == "137\n"
    await rig.eventually(lambda: limits_of(clean_node, sandbox) == ["limit.memory"])
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"


async def test_an_agent_that_runs_out_of_memory_ends_it_with_that_reason(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world, resources=RESOURCES | {"memory_mib": 32})
    # What lies in a memory file system belongs to nobody who could be killed for it.
    fill = "while :; do head -c 60M /dev/zero >> /tmp/filled; done"
    with contextlib.suppress(ConnectionError):
        while sandbox.ending is None:
            await clean_node.run(sandbox, fill)
    await rig.eventually(lambda: sandbox.spec.id in clean_node.keeper.ended)
    assert clean_node.keeper.ended[sandbox.spec.id]["details"]["reason"] == "out_of_memory"
    await clean_node.is_clean()


async def test_block_io_of_its_disk_is_limited(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    names = ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "io.max")
    directories = sandbox.runtime.cgroup(sandbox.state).dirs.values()
    files = [Path(directory, name) for directory in directories for name in names]
    found = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    assert found
    assert all(line.startswith("7:") and str(256 * MIB) in line for line in found)


async def test_a_fork_bomb_is_reported_and_the_sandbox_ends_in_time(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    bomb = "bomb() { bomb | bomb & }; while :; do bomb; done"
    await clean_node.run(sandbox, f"setsid -f bash -c '{bomb}' >/dev/null 2>&1")
    await rig.eventually(lambda: limits_of(clean_node, sandbox)[:1] == ["limit.pids"])
    assert len(clean_node.pids(sandbox)) <= RESOURCES["pids"]
    began = time.monotonic()
    await clean_node.keeper.stop(sandbox.spec.id, 1)
    assert time.monotonic() - began < 2.0
    await clean_node.is_clean()


async def test_a_full_home_is_the_sandbox_s_own(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    done = await clean_node.run(sandbox, "dd if=/dev/zero of=big bs=1M count=200 oflag=append conv=notrunc")
    assert "No space left on device" in done.stderr
    used = await clean_node.run(sandbox, "stat -c %s big; df --output=size -B1 . | tail -1")
    written, size = (int(word) for word in used.stdout.split())
    assert 48 * MIB < written <= size <= 64 * MIB
    assert sandbox.runtime.disk_used_bytes(sandbox.state) <= 64 * MIB
    assert (await clean_node.run(sandbox, "rm big && echo here > small && cat small")).stdout == "here\n"


async def test_a_full_tmp_is_counted_as_memory(clean_node: Rig, world: str) -> None:
    roomy = await start(clean_node, world, resources=RESOURCES | {"memory_mib": 256})
    command = "for n in 1 2 3; do head -c 60M /dev/zero > /tmp/$n; done; cat /tmp/? | wc -c"
    done = await clean_node.run(roomy, command)
    assert (done.stdout, "No space left on device" in done.stderr) == (f"{100 * MIB}\n", True)
    assert roomy.runtime.stats(roomy.state).memory_bytes > 100 * MIB
    assert limits_of(clean_node, roomy) == []


async def test_a_file_larger_than_the_disk_is_refused(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    done = await clean_node.run(sandbox, "truncate -s 1T sparse; echo $?; ulimit -n; ulimit -c; ulimit -u")
    # 128 and the number of SIGXFSZ; a quarter of the processes is the agent's.
    assert done.stdout == "153\n16384\n0\n72\n"


async def test_the_processor_s_share_is_kept(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world, resources=RESOURCES | {"cpu_milli": 200})
    await clean_node.run(sandbox, "for n in 1 2 3 4; do setsid -f bash -c 'while :; do :; done'; done")
    await asyncio.sleep(0.3)
    began, before = time.monotonic(), sandbox.runtime.stats(sandbox.state).cpu_usec
    await asyncio.sleep(1.0)
    share = (sandbox.runtime.stats(sandbox.state).cpu_usec - before) / 1e6 / (time.monotonic() - began)
    assert share < 0.25


async def test_it_stands_still_and_goes_on(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world)
    await clean_node.run(sandbox, "setsid -f bash -c 'while :; do echo $((++n)) > /tmp/count; done'")
    await clean_node.keeper.pause(sandbox.spec.id, 1)
    used = sandbox.runtime.stats(sandbox.state).cpu_usec
    await asyncio.sleep(0.2)
    assert sandbox.runtime.stats(sandbox.state).cpu_usec == used
    await clean_node.keeper.resume(sandbox.spec.id, 1, 60_000)
    await rig.eventually(lambda: sandbox.runtime.stats(sandbox.state).cpu_usec > used)
    await clean_node.keeper.pause(sandbox.spec.id, 1)
    assert await clean_node.keeper.stop(sandbox.spec.id, 1) == "killed"
    await clean_node.is_clean()


async def test_a_guest_that_dies_ends_it(clean_node: Rig, world: str) -> None:
    clean_node.use_guest(
        "#!/usr/bin/python3\nimport socket\nlistener = socket.socket(fileno=3)\nconnection, _ = listener.accept()\n"
        "connection.sendall(b'HTTP/1.1 204 No Content\\r\\n\\r\\n')\nlistener.accept()\n"
    )
    try:
        sandbox = await start(clean_node, world)
        _reader, writer = await asyncio.open_unix_connection(sandbox.runtime.socket_path(sandbox.state))
        writer.close()
        await rig.eventually(lambda: sandbox.spec.id in clean_node.keeper.ended)
        assert clean_node.keeper.ended[sandbox.spec.id]["details"]["reason"] == "guest_exited"
        await clean_node.is_clean()
    finally:
        clean_node.use_real_guest()


async def test_a_large_environment_arrives_whole(clean_node: Rig, world: str) -> None:
    sandbox = await start(clean_node, world, env={"HEAVY": "\x01" * 131_000})
    assert (await clean_node.run(sandbox, 'printf %s "$HEAVY" | wc -c')).stdout == "131000\n"


async def test_prepared_ones_serve_each_once(node_home: Path, world: str) -> None:
    async with rig.running_node(node_home, GATEHOUSE_POOL_SIZE="4") as node:
        first = await start(node, world)
        runtime: Any = first.runtime
        shelf = runtime.pool._shelves[first.spec.recipe]
        await rig.eventually(lambda: len(shelf.members) == shelf.target > 0)
        waiting = shelf.members[0]
        second = await start(node, world)
        assert second.state["pid"] == waiting.pid
        assert (await node.run(second, "ls -A /tmp; hostname")).stdout.startswith("sandbox-")
        await rig.eventually(lambda: waiting not in shelf.members)
