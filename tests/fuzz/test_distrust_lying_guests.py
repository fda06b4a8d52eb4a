"""Guests that lie in every way harm nobody but themselves: node and gateway stay up and small, neighbours never notice.

The seeds are fixed, so that a failure repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.node.errors import StartFailed
from sandboxes.node.runtimes import prepared
from tests.fuzz.lies import Liar
from tests.fuzz.target import neighbour
from tests.gateway import doubles
from tests.gateway.place import ALICE, MALLORY, MALLORY_KEY, request_bytes
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fuzz.target import Target
    from tests.node.rig import Rig

_MOST_GROWTH_KIB = 8 * 1024


# --- At the gateway

_ROUNDS = 4
_CASES = 100  # in each round
_AT_ONCE = 12
_PATIENCE_S = 0.2
_MOST_READ = 1 << 20


def question(dice: random.Random) -> bytes:
    """Return a right request to Mallory's sandbox, of one of the kinds that the gateway handles each in its own way."""
    body = doubles.envelope({"process": {"cmd": "x"}})
    token = doubles.token(MALLORY, MALLORY_KEY)
    agent = {"Host": f"49983-{MALLORY}.sbx.example", "X_Access_Token": token}
    rpc = agent | {"Content_Type": "application/connect+json", "Content_Length": str(len(body))}
    port = {"Host": f"8080-{MALLORY}.sbx.example"}
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Key": "eA==",
        "Sec_WebSocket_Version": "13",
    }
    return dice.choice(
        [
            request_bytes("POST /process.Process/Start HTTP/1.1", body, **rpc),
            request_bytes("POST /filesystem.Filesystem/WatchDir HTTP/1.1", body, **rpc),
            request_bytes(
                "POST /process.Process/List HTTP/1.1",
                b"{}",
                **agent,
                Content_Type="application/json",
                Content_Length="2",
            ),
            request_bytes("GET /files?path=/etc/passwd HTTP/1.1", **agent),
            request_bytes("GET /health HTTP/1.1", **agent),
            request_bytes("GET / HTTP/1.1", **port),
            request_bytes("HEAD / HTTP/1.1", **port),
            request_bytes("GET / HTTP/1.1", **port, **upgrade),
        ]
    )


async def ask(target: Target, dice: random.Random) -> None:
    """Ask Mallory's guest something through the gateway and read what comes, up to a bound."""
    reader, writer = await asyncio.open_connection(*target.address)
    try:
        writer.write(question(dice))
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_PATIENCE_S):
                read = 0
                while read < _MOST_READ and (data := await reader.read(65_536)):
                    read += len(data)
    finally:
        writer.transport.abort()


async def test_lies_at_the_gateway_harm_nobody(target: Target) -> None:
    await target.mallory.stop()
    stop, sizes = asyncio.Event(), []
    following = asyncio.ensure_future(neighbour(target, stop))
    async with Liar(target.mallory.path) as liar:
        for seed in range(_ROUNDS):
            dice = liar.dice = random.Random(seed)
            waiting = [random.Random(dice.random()) for _ in range(_CASES)]

            async def work(waiting: list[random.Random] = waiting) -> None:
                while waiting:
                    await ask(target, waiting.pop())

            await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
            sizes.append(target.resident_kib())
        stop.set()
        ticks, silence = await following

    assert target.process.returncode is None
    assert [line for line in target.said if b"_failed" in line or b"Traceback" in line] == []
    # The first round warms up what every later one uses again.
    assert max(sizes) - sizes[0] < _MOST_GROWTH_KIB, sizes
    assert (ticks > 100, silence < 1.0) == (True, True)
    assert liar.asked > _CASES
    assert len(target.alice.requests) == 1
    await only_acts_are_events(target.tap)


async def only_acts_are_events(tap: doubles.Tap) -> None:
    """Check that what guests say made no event: each is about an act that somebody asked for, and has its result."""

    def halves() -> tuple[list[str], list[str]]:
        intents = [event["id"] for event in tap.events if event["phase"] == "intent"]
        return sorted(intents), sorted(event["ref"] for event in tap.events if event["phase"] == "result")

    with contextlib.suppress(AssertionError):
        await rig.eventually(lambda: halves()[0] == halves()[1])
    assert halves()[0] == halves()[1]
    assert len(set(halves()[0])) == len(halves()[0]) > _CASES
    assert {event["sandbox"] for event in tap.events} == {ALICE, MALLORY}
    assert [event["code"] for event in tap.events if event["sandbox"] == ALICE] == ["command.start"] * 2
    assert {event["code"].partition(".")[0] for event in tap.events} == {"command", "file", "port"}


# --- At the node

_HEAD = "#!/usr/bin/python3\nimport os, socket, time\nlistener = socket.socket(fileno=3)\n"
_ACCEPT = "connection, _ = listener.accept()\n"
# What the node hears from a guest is the answer to one question, and a pipe of words.
SILENT = {
    "hangs up": _ACCEPT + "connection.close(); listener.accept()\n",
    "answers with noise": _ACCEPT + "connection.sendall(os.urandom(100_000)); listener.accept()\n",
    "answers with a refusal": _ACCEPT + "connection.sendall(b'HTTP/1.1 500 No\\r\\n\\r\\n'); listener.accept()\n",
    "answers with half a line": _ACCEPT + "connection.sendall(b'HTTP/1.1 20'); connection.close(); listener.accept()\n",
    "answers without an end": _ACCEPT + "while True: connection.sendall(b'x' * 65_536)\n",
    "answers in drips": _ACCEPT + "while True: connection.sendall(b'H'); time.sleep(0.01)\n",
    "never answers": "listener.accept(); time.sleep(1_000)\n",
    "leaves its listener": "listener.close(); time.sleep(1_000)\n",
    "claims to be ready, and dies": "print('ready 1', flush=True)\n",
}
CHATTY = {
    "an answer without an end": _ACCEPT
    + "connection.sendall(b'HTTP/1.1 204 No Content\\r\\n')\n"
    + "try:\n    while True: connection.sendall(b'X: y\\r\\n' * 10_000)\nexcept OSError: time.sleep(1_000)\n",
    "words without an end": _ACCEPT
    + "connection.sendall(b'HTTP/1.1 204 No Content\\r\\n\\r\\n')\n"
    + "while True: os.write(1, b'error forged\\nready 1\\n' * 1_000)\n",
    "a line without an end": _ACCEPT
    + "connection.sendall(b'HTTP/1.1 204 No Content\\r\\n\\r\\n')\n"
    + "while True: os.write(2, b'\\xff' * 65_536)\n",
}


@pytest.fixture
async def node() -> AsyncIterator[Rig]:
    """Return a node that this test alone uses."""
    with rig.new_home() as home:
        async with rig.running_node(home) as running:
            yield running


def resident_kib() -> int:
    """Return how much memory this process holds, in which the node runs."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


async def test_a_guest_that_lies_at_its_start_leaves_nothing(node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "_START_TIMEOUT_S", 1.0)
    alice, sizes = await node.start("alice"), []
    for _round in range(2):
        for lie in SILENT.values():
            node.use_guest(_HEAD + lie)
            with pytest.raises(StartFailed) as failure:
                await node.start()
            assert failure.value.details["reason"] in ("guest_silent", "guest_timeout", "guest_gone")
            assert len(failure.value.message) < 1_000
        sizes.append(resident_kib())
    assert (await node.run(alice, "echo here")).stdout == "here\n"
    assert sizes[1] - sizes[0] < _MOST_GROWTH_KIB
    await node.keeper.stop("alice", 1)
    await node.is_clean()


async def test_a_guest_that_never_stops_talking_costs_nothing(node: Rig) -> None:
    alice, sizes = await node.start("alice"), []
    for number, lie in enumerate(CHATTY.values()):
        node.use_guest(_HEAD + lie)
        await node.start(f"mallory{number}")
    for _ in range(4):
        await asyncio.sleep(0.4)
        sizes.append(resident_kib())
        assert (await node.run(alice, "echo here")).stdout == "here\n"
    assert max(sizes) - sizes[0] < _MOST_GROWTH_KIB
    assert list(node.keeper.sandboxes) == ["alice", "mallory0", "mallory1", "mallory2"]
    assert {code for name in node.keeper.sandboxes for code in node.codes(name)} == {"sandbox.started"}


async def test_a_guest_that_lies_can_be_paused_and_killed(node: Rig) -> None:
    for number, lie in enumerate(CHATTY.values()):
        node.use_guest(_HEAD + lie)
        sandbox = await node.start(f"mallory{number}")
        pids = node.pids(sandbox)
        await node.keeper.pause(sandbox.spec.id, 1)
        used = sandbox.runtime.stats(sandbox.state).cpu_usec
        await asyncio.sleep(0.1)
        assert sandbox.runtime.stats(sandbox.state).cpu_usec == used
        await node.keeper.resume(sandbox.spec.id, 1, 60_000)
        assert await node.keeper.stop(sandbox.spec.id, 1) == "killed"
        assert [pid for pid in pids if rig.is_alive(pid)] == []
    await node.is_clean()
