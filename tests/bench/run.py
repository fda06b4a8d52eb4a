"""`make bench`: what Gatehouse costs beside the bare tools, all measured in one run.

Prints a table and writes var/bench.json.

One plain HTTP client on a kept-alive connection; the SDK's own figures beside. Nothing here is a test: a busy machine
changes figures, not results.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2b import AsyncSandbox, Sandbox

from tests.bench.client import Wire
from tests.bench.docker import docker_run_ms, has_daemon
from tests.bench.figures import Figure, figure, header, line, write
from tests.bench.floor import available_mb
from tests.bench.lists import measure_list
from tests.bench.ports import measure_ports
from tests.bench.slow_disk import slow_fsync
from tests.live import ROOT, Stack, UnixConnection, running_stack, templates_of_this_checkout
from tests.servers import postgresql

if TYPE_CHECKING:
    from collections.abc import Callable

_TEN_MB = b"x" * 10_000_000
_HUNDRED_MB = 100_000_000
_HUNDRED = 100
_AT_ONCE = 16
_SETTLE_S = 3.0


class Bench:
    """Collects figures and says each one as soon as it is known."""

    def __init__(self) -> None:
        self.rows: list[Figure] = []

    def add(self, name: str, samples: list[float], floor: list[float] | None = None, unit: str = "ms") -> None:
        """Keep one figure."""
        row = figure(name, samples, floor, unit)
        self.rows.append(row)
        sys.stdout.write(line(row) + "\n")
        sys.stdout.flush()


def timed(act: Callable[[], object]) -> float:
    """Return how many milliseconds `act` takes."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1e3


def repeat(count: int, act: Callable[[], object], pause_s: float = 0.0) -> list[float]:
    """Time `act` `count` times, after one run that does not count."""
    act()
    samples = []
    for _ in range(count):
        time.sleep(pause_s)
        samples.append(timed(act))
    return samples


def gateway(stack: Stack) -> Wire:
    """Return a client of the public port."""
    return Wire(http.client.HTTPConnection("127.0.0.1", stack.port), stack.key)


def guest(stack: Stack) -> Wire:
    """Return a client of the guest agent of the only sandbox that runs, past the gateway."""
    return Wire(UnixConnection(guest_socket(stack)))


def guest_socket(stack: Stack) -> Path:
    """Return where the guest agent of the only sandbox that runs listens."""
    sockets = [path for path in (stack.home / "run" / "guests").glob("*/guest.sock") if _answers(path)]
    if len(sockets) != 1:
        raise RuntimeError(f"{len(sockets)} guests answer")
    return sockets[0]


def _answers(path: Path) -> bool:
    # A prepared member listens too; only a guest that runs answers.
    connection = UnixConnection(path, timeout=0.5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status in (200, 204)
    except OSError:
        return False
    finally:
        connection.close()


def measure_floor() -> dict[str, list[float]]:
    """Run floor.py in namespaces of its own."""
    templates = templates_of_this_checkout()
    rootfs = templates / (templates / "base.current").read_text().strip() / "rootfs"
    binary = ROOT / "sandboxes" / "guest" / "bin" / "gatehouse-guest"
    directory = Path(tempfile.mkdtemp(prefix="gatehouse-floor-", dir="/var/tmp"))
    directory.chmod(0o755)
    command = ["unshare", "--mount", "--net", sys.executable, "-m", "tests.bench.floor"]
    try:
        done = subprocess.run(
            [*command, str(rootfs), str(binary), str(directory)], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    loaded: dict[str, list[float]] = json.loads(done.stdout)
    return loaded


def create_samples(stack: Stack, count: int, pause_s: float, template: str = "base") -> list[float]:
    """Time from the create request to the end of the first command; kills are not counted."""
    wire = gateway(stack)
    samples = []
    for number in range(count + 3):
        time.sleep(pause_s)
        elapsed = timed(lambda: (wire.create(template), wire.run("/bin/true")))
        if number >= 3:
            samples.append(elapsed)
        wire.kill()
    return samples


def sdk_create_samples(stack: Stack, count: int) -> list[float]:
    """The same through the SDK."""
    samples = []
    for number in range(count + 2):
        time.sleep(0.2)
        began = time.perf_counter()
        sandbox = Sandbox.create(timeout=300, **stack.sdk)
        sandbox.commands.run("true")
        if number >= 2:
            samples.append((time.perf_counter() - began) * 1e3)
        sandbox.kill()
    return samples


def measure_data_plane(bench: Bench, stack: Stack) -> None:
    """Round trips, output and files of one sandbox, through the gateway and past it."""
    wire = gateway(stack)
    wire.create()
    direct = guest(stack)

    def hundred_megabytes(client: Wire) -> None:
        if client.run("/usr/bin/head", "-c", str(_HUNDRED_MB), "/dev/zero") != _HUNDRED_MB:
            raise RuntimeError("output was lost")

    bench.add(
        "exec round trip", repeat(300, lambda: wire.run("/bin/true")), repeat(300, lambda: direct.run("/bin/true"))
    )
    bench.add("100 MB stdout", repeat(5, lambda: hundred_megabytes(wire)), repeat(5, lambda: hundred_megabytes(direct)))
    bench.add(
        "10 MB upload",
        repeat(20, lambda: wire.upload("/tmp/ten", _TEN_MB)),
        repeat(20, lambda: direct.upload("/tmp/ten", _TEN_MB)),
    )
    bench.add(
        "10 MB download",
        repeat(20, lambda: wire.download("/tmp/ten")),
        repeat(20, lambda: direct.download("/tmp/ten")),
    )
    wire.kill()
    with Sandbox.create(timeout=300, **stack.sdk) as sandbox:
        bench.add("exec round trip (SDK)", repeat(50, lambda: sandbox.commands.run("true")))


def start_hundred(stack: Stack) -> tuple[float, list[str]]:
    """Start a hundred sandboxes, a few requests at a time; return the time and the ids."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        began = time.perf_counter()
        ids = list(threads.map(lambda _: gateway(stack).create(), range(_HUNDRED)))
        return (time.perf_counter() - began) * 1e3, ids


def measure_hundred(bench: Bench, stack: Stack, floor: dict[str, list[float]]) -> None:
    """A hundred sandboxes at once: time, and memory of each once they idle."""
    samples, memory = [], []
    for _ in range(3):
        time.sleep(_SETTLE_S)
        before = available_mb()
        elapsed, ids = start_hundred(stack)
        samples.append(elapsed)
        time.sleep(_SETTLE_S)
        memory.append((before - available_mb()) / _HUNDRED)
        end_all(stack, ids)
    bench.add("100 sandboxes started", samples, floor["hundred"])
    bench.add("memory per idle sandbox", memory, floor["memory"], unit="MB")


def end_all(stack: Stack, ids: list[str]) -> None:
    """End sandboxes, a few at a time."""

    def end(sandbox_id: str) -> None:
        wire = gateway(stack)
        wire.sandbox_id = sandbox_id
        wire.kill()

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(end, ids))


async def sdk_hundred_ms(stack: Stack) -> float:
    """Start a hundred sandboxes with the async SDK."""
    began = time.perf_counter()
    sandboxes = await asyncio.gather(*(AsyncSandbox.create(timeout=300, **stack.sdk) for _ in range(_HUNDRED)))
    elapsed = (time.perf_counter() - began) * 1e3
    await asyncio.gather(*(sandbox.kill() for sandbox in sandboxes))
    return elapsed


def raise_quota(stack: Stack) -> None:
    """Let the bench's tenant start as many as it measures."""
    limits = ("max_sandboxes=250", "max_cpu_milli=1000000", "max_memory_mib=1000000", "max_disk_mib=1000000")
    stack.manage("quota", "set", "default", *limits, "creates_per_minute=100000")


def main() -> None:
    """Measure everything, print the table, keep it."""
    if os.geteuid() != 0:
        raise SystemExit("The bench starts real sandboxes and needs root.")
    bench = Bench()
    sys.stdout.write(header() + "\n")
    floor = measure_floor()
    with running_stack() as stack:
        raise_quota(stack)
        bench.add("L2 create to first result", create_samples(stack, 60, 0.1), floor["create"])
        bench.add("L1 create to first result", create_samples(stack, 60, 0.1, "base-process"), floor["jail"])
        bench.add("L2 create to first result (SDK)", sdk_create_samples(stack, 20), floor["create"])
        measure_data_plane(bench, stack)
        bench.add("public port request", *measure_ports(stack, guest_socket, repeat))
        bench.add("list page at 10,000 sandboxes", *measure_list(stack, gateway(stack), repeat))
        measure_hundred(bench, stack, floor)
        bench.add("100 sandboxes started (SDK)", [asyncio.run(sdk_hundred_ms(stack))], floor["hundred"])
    with running_stack(GATEHOUSE_POOL_SIZE="0") as stack:
        bench.add("L2 create to first result, nothing prepared", create_samples(stack, 30, 0.0), floor["create"])
        jails = create_samples(stack, 30, 0.0, "base-process")
        bench.add("L1 create to first result, nothing prepared", jails, floor["jail"])
    with slow_fsync() as stack:
        bench.add("L2 create to first result, every fsync takes 5 ms more", create_samples(stack, 30, 0.1))
        bench.add("exec round trip, every fsync takes 5 ms more", exec_samples(stack))
    measure_ledger(bench)
    measure_egress(bench)
    measure_broker(bench)
    if has_daemon():
        bench.add("docker run --rm base true", docker_run_ms())
    else:
        sys.stdout.write("docker run: not measured, no daemon answers here\n")
    write(bench.rows, ROOT / "var" / "bench.json")


def measure_ledger(bench: Bench) -> None:
    """The ledger on both databases, each of which syncs to disk as in an installation."""
    for name, samples in ledger_rows({}).items():
        bench.add(name, samples["samples"], samples["floor"], unit=samples.get("unit", "1/s"))
    with postgresql(fsync="on", full_page_writes="on") as url:
        for name, samples in ledger_rows({"DATABASE_URL": url}).items():
            bench.add(f"{name} (PostgreSQL)", samples["samples"], samples["floor"], unit=samples.get("unit", "1/s"))


def measure_egress(bench: Bench) -> None:
    """The way out on one core; the floor is Debian's squid on the same one."""
    _measure(bench, "tests.bench.egress")


def measure_broker(bench: Bench) -> None:
    """The secret broker; the floor is a call without it, made in turn."""
    _measure(bench, "tests.bench.broker")


def _measure(bench: Bench, module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for name, row in json.loads(done.stdout).items():
        bench.add(name, row["samples"], row.get("floor"), unit=row["unit"])


def ledger_rows(variables: dict[str, str]) -> dict[str, Any]:
    """Run ledger.py on an empty installation and return its rows."""
    home = Path(tempfile.mkdtemp(prefix="gatehouse-ledger-", dir="/var/tmp"))
    home.chmod(0o755)
    environment = {**os.environ, **variables, "GATEHOUSE_HOME": str(home), "GATEHOUSE_LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "tests.bench.ledger"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def exec_samples(stack: Stack) -> list[float]:
    """Time round trips of a fresh sandbox."""
    wire = gateway(stack)
    wire.create()
    samples = repeat(50, lambda: wire.run("/bin/true"))
    wire.kill()
    return samples


if __name__ == "__main__":
    main()
