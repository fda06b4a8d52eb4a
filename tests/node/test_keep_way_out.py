"""Node and egress die in turn under traffic: nothing passes that may not, and all else works again by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from tests.internet.world import DB, EVIL
from tests.node import rig
from tests.node.nodeprocess import NodeProcess
from tests.node.rig import document, eventually, open_network
from tests.node.tunnels import Tunnel, fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.internet.world import Internet

RULES = ("plain.allowed.test:80", "db.allowed.test:5432")
PAGE = "http://plain.allowed.test/"
SERVED = "served plain.allowed.test/"


@dataclass
class Home:
    """A node in a process of its own, with its egress."""

    process: NodeProcess

    @property
    def path(self) -> Path:
        return self.process.home

    def egress(self) -> int:
        """Return the pid of egress."""
        return int(json.loads((self.path / "run" / "egress.json").read_text())["pid"])

    async def version(self, sandbox_id: str) -> int | None:
        """Return which version of its document egress is known to obey."""
        _status, answer = await self.process.call("GET", f"/v1/sandboxes/{sandbox_id}")
        version: int | None = answer["network"]["version"]
        return version

    async def settled(self, sandbox_id: str, version: int) -> None:
        """Return once egress is known to obey this version."""
        for _ in range(400):
            if await self.version(sandbox_id) == version:
                return
            await _a_moment()
        raise AssertionError(self.process.log())

    async def refused(self, sandbox_id: str) -> list[str]:
        """Return which hosts were refused to the sandbox."""
        events = await self.process.events(sandbox_id)
        return [event["details"]["host"] for event in events if event["code"] == "egress.denied"]


async def _a_moment() -> None:
    await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def home(node_home: Path, internet: Internet) -> AsyncIterator[Home]:
    """Return a node that runs, with egress in the test internet."""
    process = NodeProcess(node_home, {"GATEHOUSE_NODE_EGRESS": "1", **internet.settings()})
    await process.start()
    made = Home(process)
    try:
        yield made
    finally:
        await process.stop_all()
        process.kill(signal.SIGTERM)
        pid = made.egress()
        await eventually(lambda: not rig.is_alive(pid))


async def test_the_node_dies_and_nothing_in_the_sandbox_notices(home: Home, internet: Internet) -> None:
    await home.process.start_sandbox("alice", **open_network(*RULES))
    egress = home.egress()
    async with Tunnel(home.process, "alice", "db.allowed.test", 5432) as tunnel:
        assert await tunnel.say("first") == "first"
        home.process.kill()
        assert await tunnel.say("second") == "second"
        assert await fetch(home.process, "alice", PAGE) == SERVED
        assert "no_rule" in await fetch(home.process, "alice", "http://evil.test/")
        await home.process.start()
        await home.settled("alice", 1)
        assert await tunnel.say("third") == "third"
    assert home.egress() == egress
    # What was refused meanwhile is told now.
    await eventually_refused(home, "alice", ["evil.test"])
    assert internet.sites.at(EVIL) == []


async def test_a_policy_still_changes_after_that(home: Home) -> None:
    await home.process.start_sandbox("alice", **open_network(*RULES))
    home.process.kill()
    await home.process.start()
    async with Tunnel(home.process, "alice", "db.allowed.test", 5432) as tunnel:
        body = {"generation": 1, "document": document(version=2), "ingress_ports": []}
        assert await home.process.call("PUT", "/v1/sandboxes/alice/network", body) == (200, {"version": 2})
        assert await tunnel.ended()
    assert "no_rule" in await fetch(home.process, "alice", PAGE)


async def test_both_die_and_the_listener_is_made_anew(home: Home, internet: Internet) -> None:
    await home.process.start_sandbox("alice", **open_network(*RULES))
    egress = home.egress()
    async with Tunnel(home.process, "alice", "db.allowed.test", 5432) as tunnel:
        assert await tunnel.say("first") == "first"
        home.process.kill()
        os.kill(egress, signal.SIGKILL)
        await eventually(lambda: internet.sites.at(DB)[0].closed)
        assert await tunnel.ended()
    assert "egress_unavailable" in await fetch(home.process, "alice", PAGE)
    assert len(internet.sites.connections) == 1
    await home.process.start()
    await home.settled("alice", 1)
    assert home.egress() != egress
    assert await fetch(home.process, "alice", PAGE) == SERVED
    assert "no_rule" in await fetch(home.process, "alice", "http://evil.test/")


async def test_what_was_wished_just_before_the_node_died_counts_after_it(home: Home) -> None:
    await home.process.start_sandbox("alice", **open_network(*RULES))
    os.kill(home.egress(), signal.SIGSTOP)
    path = home.path / "node" / "sandboxes" / "alice" / "spec.json"
    stored = json.loads(path.read_bytes())
    stored["network"]["document"] = document(version=2)
    path.write_text(json.dumps(stored))
    home.process.kill()
    os.kill(home.egress(), signal.SIGCONT)
    await home.process.start()
    await home.settled("alice", 2)
    assert "no_rule" in await fetch(home.process, "alice", PAGE)


async def test_a_sandbox_that_ended_meanwhile_has_no_way_out_any_more(home: Home, internet: Internet) -> None:
    await home.process.start_sandbox("alice", **open_network(*RULES))
    state = home.process.state("alice")["runtime"]
    async with Tunnel(home.process, "alice", "db.allowed.test", 5432):
        home.process.kill()
        os.kill(state["pid"], signal.SIGKILL)
        await home.process.start()
        await eventually(lambda: internet.sites.at(DB)[0].closed)
    rows = await home.process.rows()
    assert (rows["alice"]["state"], rows["alice"]["reason"]) == ("ended", "lost")
    await eventually(lambda: list((home.path / "run" / "egress").iterdir()) == [])


async def test_a_paused_sandbox_stays_without_one_until_it_goes_on(home: Home) -> None:
    await home.process.start_sandbox("alice", **open_network(*RULES))
    status, _ = await home.process.call("POST", "/v1/sandboxes/alice/pause", {"generation": 1})
    assert status == 200
    home.process.kill()
    os.kill(home.egress(), signal.SIGKILL)
    await home.process.start()
    await home.settled("alice", 1)
    assert _knock(home, "alice") == b""
    status, _ = await home.process.call("POST", "/v1/sandboxes/alice/resume", {"generation": 1, "ttl_ms": 60_000})
    assert status == 200
    assert await fetch(home.process, "alice", PAGE) == SERVED


async def test_an_orderly_end_ends_egress_and_the_next_start_serves_the_same_sandboxes(home: Home) -> None:
    await home.process.start_sandbox("alice", **open_network(*RULES))
    egress = home.egress()
    home.process.kill(signal.SIGTERM)
    await eventually(lambda: not rig.is_alive(egress))
    assert "egress_unavailable" in await fetch(home.process, "alice", PAGE)
    await home.process.start()
    await home.settled("alice", 1)
    assert await fetch(home.process, "alice", PAGE) == SERVED


def _knock(home: Home, sandbox_id: str) -> bytes:
    """Ask for a page at the sandbox's socket, as if from inside, and return what was served of it."""
    slot = home.process.state(sandbox_id)["runtime"]["slot"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(home.path / "run" / "egress" / str(slot) / "egress.sock"))
        connection.sendall(f"GET {PAGE} HTTP/1.1\r\nHost: plain.allowed.test\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return b"" if b" 403 " in answer.split(b"\r\n", 1)[0] else answer


async def eventually_refused(home: Home, sandbox_id: str, hosts: list[str]) -> None:
    """Return once exactly these hosts were refused to the sandbox."""
    found: Any = None
    for _ in range(400):
        found = await home.refused(sandbox_id)
        if found == hosts:
            return
        await _a_moment()
    raise AssertionError(found)
