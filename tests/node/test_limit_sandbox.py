"""A sandbox that runs into a limit is told so by name, harms nobody else, and lives on where it can."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import limitwatch
from tests.node import rig

if TYPE_CHECKING:
    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
RESOURCES = {"cpu_milli": 1000, "memory_mib": 64, "disk_mib": 64, "pids": 128}
TOO_MUCH = "python3 -c 'x = bytearray(128 << 20)'"
# As many as there may be. They do not come and go, so that another user reaches what is left.
SLEEPERS = "import os, time\nwhile True: os.fork() or time.sleep(1000)"
BOMB = "bomb() { bomb | bomb & }; while :; do bomb; done"


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limitwatch, "_LOOK_S", 0.1)


async def start(node: Rig, **changes: int) -> Sandbox:
    """Start a sandbox with small limits."""
    return await node.start(resources=RESOURCES | changes)


def limits_of(node: Rig, sandbox: Sandbox) -> list[tuple[str, dict[str, Any]]]:
    """Return which limits were reported, and the counters."""
    return [
        (event["code"], event["details"]) for event in node.events(sandbox.spec.id) if event["code"].startswith("limit")
    ]


async def test_a_process_that_takes_too_much_memory_is_killed_and_the_sandbox_lives_on(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    done = await clean_node.run(sandbox, f"{TOO_MUCH}; echo $?")
    assert done.stdout == "137\n"
    await rig.eventually(lambda: limits_of(clean_node, sandbox) == [("limit.memory", {"count": 1})])
    assert sandbox.runtime.stats(sandbox.state).oom_kills == 1
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"


async def test_memory_is_counted_up_to_its_limit(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, "setsid -f python3 -c 'import time; x = b\"x\" * (32 << 20); time.sleep(100)'")
    await rig.eventually(lambda: 32 * MIB < sandbox.runtime.stats(sandbox.state).memory_bytes <= 64 * MIB)


async def test_strikes_between_two_looks_are_one_event(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limitwatch, "_LOOK_S", 1000.0)
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, f"{TOO_MUCH}; {TOO_MUCH}")
    assert sandbox.watch is not None
    sandbox.watch._look()
    await rig.eventually(lambda: limits_of(clean_node, sandbox) == [("limit.memory", {"count": 2})])


async def test_a_guest_that_runs_out_of_memory_itself_ends_the_sandbox_with_that_reason(clean_node: Rig) -> None:
    sandbox = await start(clean_node, memory_mib=32)
    # What lies in a memory file system belongs to nobody who could be killed for it.
    fill = "while :; do head -c 60M /dev/zero >> /dev/shm/filled; done"
    with contextlib.suppress(ConnectionError):
        while sandbox.ending is None:
            await clean_node.run(sandbox, fill)
    await rig.eventually(lambda: sandbox.spec.id in clean_node.keeper.ended)
    ended = clean_node.keeper.ended[sandbox.spec.id]
    assert ended["details"]["reason"] == "out_of_memory"
    assert ended["details"]["oom_kills"] >= 1
    await clean_node.is_clean()


async def test_a_guest_that_ends_later_for_another_reason_is_not_blamed_on_memory(clean_node: Rig) -> None:
    clean_node.use_guest(
        "#!/usr/bin/python3\n"
        "import os, socket\n"
        "if not os.fork():\n    open('/proc/self/oom_score_adj', 'w').write('900')\n    x = bytearray(128 << 20)\n"
        "os.wait()\n"
        "listener = socket.socket(fileno=3)\n"
        "connection, _ = listener.accept()\n"
        "connection.sendall(b'HTTP/1.1 204 No Content\\r\\n\\r\\n')\n"
        "listener.accept()\n"
    )
    try:
        sandbox = await start(clean_node)
        assert sandbox.runtime.stats(sandbox.state).oom_kills == 1
        _reader, writer = await asyncio.open_unix_connection(sandbox.runtime.socket_path(sandbox.state))
        writer.close()
        await rig.eventually(lambda: sandbox.spec.id in clean_node.keeper.ended)
        assert clean_node.keeper.ended[sandbox.spec.id]["details"]["reason"] == "guest_exited"
    finally:
        clean_node.use_real_guest()


@pytest.mark.parametrize("user", ["user", "root"])
async def test_a_fork_bomb_is_reported_and_the_sandbox_lives_on(clean_node: Rig, user: str) -> None:
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, f"setsid -f bash -c '{BOMB}' >/dev/null 2>&1", user=user)
    await rig.eventually(lambda: limits_of(clean_node, sandbox) == [("limit.pids", {"count": 0, "user_limit": 96})])
    answer = await clean_node.run(sandbox, "id -un", user="root")
    # Root shares its number of processes with the guest agent, which then says why it can start nothing.
    assert answer.stdout == "root\n" or "the sandbox is at a limit" in str(answer.error)


async def test_two_users_together_are_held_by_the_sandbox_s_limit(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    for user in ("user", "root"):
        await clean_node.run(sandbox, f'python3 -c "{SLEEPERS}" >/dev/null 2>&1', user=user)
    await rig.eventually(lambda: [d["count"] for _code, d in limits_of(clean_node, sandbox)][-1:] > [0])
    stats = sandbox.runtime.stats(sandbox.state)
    assert stats.pids <= 128
    assert stats.pids_refused >= 1
    assert sandbox.ending is None


async def test_processes_below_the_limit_are_no_event(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, "for n in $(seq 30); do setsid -f sleep 1000; done")
    await asyncio.sleep(0.5)
    assert limits_of(clean_node, sandbox) == []


async def test_a_full_disk_is_the_sandbox_s_own(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    done = await clean_node.run(sandbox, "dd if=/dev/zero of=big bs=1M count=200 oflag=append conv=notrunc")
    assert done.exit_code == 1
    assert "No space left on device" in done.stderr
    used = await clean_node.run(sandbox, "stat -c %s big; df --output=size -B1 / | tail -1")
    written, size = (int(word) for word in used.stdout.split())
    assert 48 * MIB < written <= size <= 64 * MIB
    assert sandbox.runtime.disk_used_bytes(sandbox.state) <= 64 * MIB
    assert (await clean_node.run(sandbox, "rm big && echo here > small && cat small")).stdout == "here\n"


async def test_too_many_files_fill_the_sandbox_s_own_disk_only(clean_node: Rig) -> None:
    sandbox = await start(clean_node, disk_mib=16)
    make = "import itertools\nfor n in itertools.count(): open(f'/home/user/{n}', 'w').close()"
    done = await clean_node.run(sandbox, f'python3 -c "{make}" 2>&1 | tail -1')
    assert "No space left on device" in done.stdout


async def test_a_file_larger_than_the_disk_is_refused(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    done = await clean_node.run(sandbox, "truncate -s 1T sparse; echo $?; stat -c %s sparse")
    # 128 and the number of SIGXFSZ.
    assert done.stdout == "153\n0\n"
    assert (await clean_node.run(sandbox, "truncate -s 64M sparse; stat -c %s sparse")).stdout == f"{64 * MIB}\n"


async def test_the_processor_s_share_is_kept(clean_node: Rig) -> None:
    sandbox = await start(clean_node, cpu_milli=200)
    await clean_node.run(sandbox, "for n in 1 2 3 4; do setsid -f bash -c 'while :; do :; done'; done")
    await asyncio.sleep(0.3)
    began, before = time.monotonic(), sandbox.runtime.stats(sandbox.state).cpu_usec
    await asyncio.sleep(1.0)
    share = (sandbox.runtime.stats(sandbox.state).cpu_usec - before) / 1e6 / (time.monotonic() - began)
    assert share < 0.25


async def test_a_neighbour_works_on_meanwhile(clean_node: Rig) -> None:
    rough, calm = await start(clean_node), await start(clean_node)
    await clean_node.run(rough, f"setsid -f bash -c '{BOMB}' >/dev/null 2>&1")
    await clean_node.run(rough, "head -c 100M /dev/zero > big", user="root")
    done = await clean_node.run(calm, "df --output=avail -BM / | tail -1; ls /proc | grep -c '^[0-9]'; touch fine")
    avail, processes = done.stdout.split()
    assert (int(avail.rstrip("M")) > 40, int(processes) < 10, done.stderr) == (True, True, "")
    assert limits_of(clean_node, calm) == []


async def test_block_io_of_the_sandbox_s_disk_is_limited(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    files = [
        Path(directory, name)
        for directory in sandbox.runtime.cgroup(sandbox.state).dirs.values()
        for name in ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "io.max")
    ]
    found = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    assert found
    assert all(line.startswith("7:") and str(256 * MIB) in line for line in found)
