"""What published escapes tried, in every world: directories of leaked descriptors, sockets of engines, greed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.node import guestcalls
from tests.node.rig import eventually

if TYPE_CHECKING:
    from tests.security.conftest import Place
    from tests.security.inside import Inside

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ENGINES = [
    ("127.0.0.1", 2375),
    ("127.0.0.1", 2376),
    ("172.17.0.1", 2375),
    ("192.168.65.7", 2375),
    ("host.docker.internal", 2375),
    ("169.254.169.254", 80),
]


@pytest.fixture
def mallory(place: Place) -> Inside:
    """Return Mallory, with root where the world has one."""
    return place.mallory


@pytest.mark.parametrize("number", range(3, 21))
async def test_no_descriptor_is_a_directory_to_start_in(mallory: Inside, number: int) -> None:
    done = await guestcalls.run(mallory.socket_path, "pwd -P", user=mallory.user, cwd=f"/proc/self/fd/{number}")
    assert done.stdout == ""
    assert done.error is not None
    assert done.error.startswith(f"cwd '/proc/self/fd/{number}' ")


async def test_no_engine_s_socket_is_there(mallory: Inside) -> None:
    found = await mallory.text("find / -xdev -type s 2>/dev/null; ls /run /var/run 2>/dev/null | grep -i dock || true")
    assert [line for line in found.splitlines() if "guest" not in line] == []


@pytest.mark.parametrize(("host", "port"), _ENGINES)
async def test_no_engine_and_no_cloud_answers(mallory: Inside, host: str, port: int) -> None:
    act = f"lambda: socket.create_connection(({host!r}, {port}), 2).close()"
    assert await mallory.python(f"answer(attempt({act}) if {host!r}[0].isdigit() else 'no name')") != "done"


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/panic"])
async def test_the_levers_of_the_kernel_do_not_move(mallory: Inside, path: str) -> None:
    before = Path(path).read_text() if path != "/proc/sysrq-trigger" else None
    done = await mallory.shell(f"echo '|/tmp/evil' > {path}")
    assert done.exit_code != 0
    assert before is None or Path(path).read_text() == before


async def test_a_spin_of_many_threads_slows_nobody_else(place: Place) -> None:
    resources = {"cpu_milli": 500, "memory_mib": 192, "disk_mib": 32, "pids": 96}
    greedy = await place.sandbox(resources=resources)
    spin = "timeout 3 sh -c 'for n in $(seq 32); do (while :; do :; done) & done; wait'"
    task = asyncio.create_task(greedy.shell(spin))
    await asyncio.sleep(0.5)
    began = time.monotonic()
    for _ in range(5):
        assert await place.acme.still_works()
    assert time.monotonic() - began < 5
    await task
    usage = greedy.sandbox.runtime.stats(greedy.sandbox.state)
    assert usage.cpu_usec < 3_500_000
    await place.end(greedy)


async def test_writing_to_a_device_that_is_full_fills_nothing(mallory: Inside) -> None:
    done = await mallory.shell("timeout 2 yes > /dev/full")
    assert done.exit_code != 0
    assert await mallory.still_works()


async def test_a_sparse_terabyte_takes_no_room_of_the_host(place: Place) -> None:
    greedy = await place.sandbox()
    done = await greedy.shell("truncate -s 1T ~/sparse; printf x | dd of=~/sparse bs=1 seek=1000000000000 conv=notrunc")
    assert greedy.sandbox.runtime.disk_used_bytes(greedy.sandbox.state) < 64 * 2**20
    assert await greedy.still_works(), done
    await place.end(greedy)


async def test_memory_past_twice_the_limit_ends_that_program_by_name(place: Place) -> None:
    greedy = await place.sandbox()
    megabytes = 2 * greedy.sandbox.spec.resources.memory_mib
    done = await greedy.shell(f"python3 -c 'x = bytearray({megabytes} << 20)'; echo $?")
    assert done.stdout in ("137\n", "1\n")
    await eventually(lambda: done.stdout == "1\n" or "limit.memory" in place.rig.codes(greedy.sandbox.spec.id) or None)
    assert await greedy.still_works()
    await place.end(greedy)
