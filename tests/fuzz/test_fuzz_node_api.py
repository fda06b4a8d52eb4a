"""Garbage at every door of the node: it stays up and small, refuses by name, and its sandboxes notice nothing.

The seeds are fixed, so that a failure repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import nodegarbage
from tests.node import rig
from tests.node.nodeprocess import NodeProcess
from tests.node.tapline import event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ROUNDS = 4
_PIECES = 150  # in each round
_AT_ONCE = 8
_PATIENCE_S = 0.15
_MOST_GROWTH_KIB = 8 * 1024
KEY = "0a" * 8


@pytest.fixture
async def process(node_home: Path) -> AsyncIterator[NodeProcess]:
    """Return a node with a sandbox of Alice's."""
    process = NodeProcess(node_home)
    await process.start()
    await process.start_sandbox("alice", grants={KEY: None})
    yield process
    process.kill()


@pytest.fixture
def node_home() -> Any:
    """Return a home of a node that this test alone uses."""
    with rig.new_home() as home:
        yield home


def resident_kib(process: NodeProcess) -> int:
    """Return how much memory the node holds."""
    assert process.process is not None
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def descriptors(process: NodeProcess) -> int:
    """Return how many files and sockets the node has open."""
    assert process.process is not None
    return sum(1 for _ in Path(f"/proc/{process.process.pid}/fd").iterdir())


async def throw(door: Path, data: bytes, dice: random.Random) -> bytes:
    """Send bytes in a few pieces, end in one of several ways, and return what came back."""
    reader, writer = await asyncio.open_unix_connection(str(door))
    came = b""
    try:
        with contextlib.suppress(OSError, TimeoutError):
            for _ in range(dice.randrange(3)):
                cut = dice.randrange(len(data) + 1)
                writer.write(data[:cut])
                data = data[cut:]
                await asyncio.sleep(0)
            writer.write(data)
            match dice.randrange(4):
                case 0:
                    writer.write_eof()
                case 1:
                    return came
            async with asyncio.timeout(_PATIENCE_S):
                while chunk := await reader.read(65_536):
                    came = (came + chunk)[-65_536:]
    finally:
        writer.transport.abort()
    return came


async def bombard(door: Path, pieces: list[bytes], dice: random.Random) -> list[bytes]:
    """Throw all pieces, several at once; return what came back."""
    waiting = [(piece, random.Random(dice.random())) for piece in pieces]
    came: list[bytes] = []

    async def work() -> None:
        while waiting:
            piece, own = waiting.pop()
            came.append(await throw(door, piece, own))

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return came


@contextlib.asynccontextmanager
async def unharmed(process: NodeProcess) -> AsyncIterator[list[int]]:
    """Let Alice work meanwhile; afterwards the node must be up, small and clean. Collects sizes into the list."""
    sizes: list[int] = []
    stop, worst = asyncio.Event(), 0.0

    async def work() -> None:
        nonlocal worst
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            began = loop.time()
            assert (await process.run("alice", "echo here")).stdout == "here\n"
            assert (await process.call("GET", "/v1/health"))[0] == 200
            worst = max(worst, loop.time() - began)
            await asyncio.sleep(0.05)

    before, working = descriptors(process), asyncio.create_task(work())
    yield sizes
    stop.set()
    await working
    assert worst < 3.0
    # The first round warms up what every later one uses again.
    assert max(sizes, default=0) - (sizes or [0])[0] < _MOST_GROWTH_KIB, sizes
    await rig.eventually(lambda: descriptors(process) <= before + 2)
    faults = [line for line in process.log().splitlines() if is_fault(line)]
    assert faults == []
    assert list(await process.rows()) == ["alice"]
    assert (await process.rows())["alice"]["state"] == "running"


def is_fault(line: str) -> bool:
    """Tell whether a line of the log tells of something that nobody had foreseen."""
    return any(word in line for word in ("request_failed", "Traceback", "background_task_failed", "never retrieved"))


@pytest.mark.parametrize("door", ["node.sock", "edge.sock"])
async def test_what_is_no_request_harms_nobody(process: NodeProcess, door: str) -> None:
    dice = random.Random(door)
    async with unharmed(process) as sizes:
        for _round in range(_ROUNDS):
            pieces = [dice.choice(nodegarbage.KINDS)(dice) for _ in range(_PIECES)]
            came = await bombard(process.home / "run" / door, pieces, dice)
            assert {answer[:12] for answer in came} & {b"HTTP/1.1 500", b"HTTP/1.0 500"} == set()
            sizes.append(resident_kib(process))
    told = [json.loads(line) for line in process.log().splitlines() if '"request_malformed"' in line]
    assert told != []
    assert {(line["level"], len(line)) for line in told} == {("warning", 4)}


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/sandboxes", rig.request("mallory", build="nothing")),
    ("POST", "/v1/sandboxes/alice/deadline", {"generation": 7, "ttl_ms": 1, "extend_only": True}),
    ("POST", "/v1/sandboxes/alice/pause", {"generation": 7}),
    ("POST", "/v1/sandboxes/alice/resume", {"generation": 7, "ttl_ms": 1}),
    ("PUT", f"/v1/sandboxes/alice/grants/{KEY}", {"generation": 7, "expires_at": None}),
    ("POST", "/v1/events/ack", {"upto": 0}),
]


def spoilt(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the body with each field, at each depth, replaced by each wrong value, and without it."""
    found = []
    for name, value in body.items():
        found += [body | {name: wrong} for wrong in nodegarbage.WRONG]
        found.append({key: item for key, item in body.items() if key != name})
        if isinstance(value, dict) and value:
            found += [body | {name: inner} for inner in spoilt(value)]
    return found


async def test_every_field_of_every_call_is_checked(process: NodeProcess) -> None:
    statuses: set[int] = set()
    async with unharmed(process) as sizes:
        for method, path, body in CALLS:
            for wrong in spoilt(body):
                status, answer = await process.call(method, path, json.dumps(wrong).encode())
                statuses.add(status)
                assert status < 500, (path, wrong, answer)
                assert status < 300 or answer["error"]["message"], (path, wrong)
            sizes.append(resident_kib(process))
    assert statuses == {200, 400, 404, 409}


async def test_every_query_is_checked(process: NodeProcess) -> None:
    words = ("", "-1", "1e3", "0x1", "9" * 5_000, "%00", "%ff", "²", "a&b", "%F0%9F%98%80", "1;2", "+1", " 1")
    async with unharmed(process):
        for path, names in {
            "/v1/events": ("after", "limit", "wait_ms"),
            "/v1/sandboxes/alice/samples": ("start_ms", "end_ms"),
        }.items():
            for name in names:
                for word in words:
                    head = f"GET {path}?{name}={word} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
                    came = await throw(process.home / "run" / "node.sock", head.encode(), random.Random(2))
                    assert came[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 200", b""), (word, came[:300])


async def test_calls_that_do_not_come_to_their_end_harm_nobody(process: NodeProcess) -> None:
    half = b"POST /v1/sandboxes HTTP/1.1\r\nHost: node\r\nContent-Length: 1000\r\n\r\n{"
    async with unharmed(process) as sizes:
        for _round in range(3):
            connections = [socket.socket(socket.AF_UNIX) for _ in range(300)]
            for number, connection in enumerate(connections):
                connection.connect(str(process.home / "run" / ("node.sock", "edge.sock", "tap.sock")[number % 3]))
                connection.sendall(half[: number % len(half) + 1])
                if number % 2:
                    connection.shutdown(socket.SHUT_WR)
            assert (await process.call("GET", "/v1/health"))[0] == 200
            for connection in connections:
                connection.close()
            sizes.append(resident_kib(process))


async def test_garbage_at_the_tap_harms_nobody(process: NodeProcess) -> None:
    dice, sent = random.Random(5), event("alice")
    kinds = (
        nodegarbage.tap_noise,
        nodegarbage.tap_flood,
        nodegarbage.noise,
        lambda dice: nodegarbage.tap_forgery(dice, sent),
        lambda dice: b"".join(nodegarbage.tap_forgery(dice, sent) for _ in range(50)),
    )
    async with unharmed(process) as sizes:
        for _round in range(_ROUNDS):
            pieces = [dice.choice(kinds)(dice) for _ in range(_PIECES)]
            came = await bombard(process.home / "run" / "tap.sock", pieces, dice)
            answers = [json.loads(line) for lines in came for line in lines.splitlines()[:-1] if line[:1] == b"{"]
            assert {answer["ok"] for answer in answers} == {False}
            sizes.append(resident_kib(process))
    assert [one["code"] for one in await process.events("alice")] == ["sandbox.started"]


async def test_a_gateway_that_never_reads_is_not_fed(process: NodeProcess) -> None:
    line = json.dumps({"n": 1, "event": event("nobody")}).encode() + b"\n"
    async with unharmed(process) as sizes:
        sizes.append(resident_kib(process))
        connections = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for connection in connections:
            connection.connect(str(process.home / "run" / "tap.sock"))
            connection.settimeout(0)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while sent < 200_000 * len(line):
                    sent += connection.send(line * 1_000)
            assert sent < 20_000_000
            await asyncio.sleep(0.1)
        sizes.append(resident_kib(process))
        for connection in connections:
            connection.close()
