"""Node and egress die in turn: programs go on believing the sandbox's authority, and hosts go on getting the secret."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest_asyncio

from tests.egress.inside import SECRET, ControlPlane
from tests.node import rig
from tests.node.nodeprocess import NodeProcess
from tests.node.rig import document, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.internet.world import Internet

HOST = "api.allowed.test"
# Reads the bundle once, and fetches the page each time that somebody writes into the pipe.
PROGRAM = f"""
import os, ssl, urllib.request
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
os.mkfifo("/tmp/go")
while True:
    with open("/tmp/go") as go:
        go.read()
    try:
        said = opener.open("https://{HOST}/x", timeout=10).read().decode()
    except OSError as error:
        said = repr(error)
    with open("/tmp/said.new", "w") as file:
        file.write(said)
    os.rename("/tmp/said.new", "/tmp/said")
"""


class Home:
    """A node in a process of its own, with its egress and a sandbox in which the program runs."""

    def __init__(self, process: NodeProcess, internet: Internet) -> None:
        self.process = process
        self.internet = internet

    def egress(self) -> int:
        """Return the pid of egress."""
        return int(json.loads((self.process.home / "run" / "egress.json").read_text())["pid"])

    async def fetches(self) -> str:
        """Have the program fetch the page; return what it got."""
        wait = "for i in $(seq 500); do test -e /tmp/said && break; sleep 0.02; done; cat /tmp/said"
        done = await self.process.run("alice", f"rm -f /tmp/said; echo > /tmp/go; {wait}")
        return done.stdout

    async def is_told(self, version: int) -> None:
        """Return once egress is known to obey this version."""
        async with asyncio.timeout(30):
            while (await self.process.call("GET", "/v1/sandboxes/alice"))[1]["network"]["version"] != version:
                await asyncio.sleep(0.02)

    def secrets(self) -> list[str]:
        """Return what the host was sent with each request."""
        return [one.headers["authorization"] for one in self.internet.sites.requests()]


def bound(*hosts: str, version: int = 1) -> dict[str, object]:
    """Return a document with a rule for these hosts."""
    headers = {"Authorization": "Bearer ${secrets.key}"}
    rules = [{"host": host, "set": headers, "methods": None, "paths": None} for host in hosts]
    return document(f"{HOST}:443", version=version, rules=rules)


@pytest_asyncio.fixture
async def home(node_home: Path, internet: Internet) -> AsyncIterator[Home]:
    """Return it once the program waits."""
    authorities = node_home / "hosts.pem"
    authorities.write_text(internet.authority.pem)
    authorities.chmod(0o644)
    plane = ControlPlane(node_home / "run" / "internal.sock")
    await plane.start()
    (node_home / "run" / "internal.sock").chmod(0o666)
    settings = {"GATEHOUSE_NODE_EGRESS": "1", "GATEHOUSE_EGRESS_CA_FILE": str(authorities), **internet.settings()}
    process = NodeProcess(node_home, settings)
    await process.start()
    made = Home(process, internet)
    try:
        await process.start_sandbox("alice", network={"mode": "open", "document": bound(HOST)})
        begin = f"cat > /tmp/program.py <<'PROGRAM'\n{PROGRAM}\nPROGRAM\nnohup python3 /tmp/program.py >/tmp/log 2>&1 &"
        wait = "for i in $(seq 500); do test -p /tmp/go && break; sleep 0.02; done; cat /tmp/log"
        assert (await process.run("alice", f"{begin}\n{wait}")).stdout == ""
        yield made
    finally:
        await process.stop_all()
        process.kill(signal.SIGTERM)
        pid = made.egress()
        await eventually(lambda: not rig.is_alive(pid))
        await plane.stop()


async def test_the_node_dies(home: Home) -> None:
    assert await home.fetches() == f"served {HOST}/x\n"
    home.process.kill()
    assert await home.fetches() == f"served {HOST}/x\n"
    await home.process.start()
    await home.is_told(1)
    assert await home.fetches() == f"served {HOST}/x\n"
    assert home.secrets() == [f"Bearer {SECRET}"] * 3


async def test_egress_dies_with_all_that_it_knew(home: Home) -> None:
    assert await home.fetches() == f"served {HOST}/x\n"
    egress = home.egress()
    os.kill(egress, signal.SIGKILL)
    await eventually(lambda: home.egress() != egress)
    await home.is_told(1)
    assert await home.fetches() == f"served {HOST}/x\n"
    assert home.secrets() == [f"Bearer {SECRET}"] * 2


async def test_both_die_and_other_hosts_are_bound_afterwards(home: Home) -> None:
    egress = home.egress()
    home.process.kill()
    os.kill(egress, signal.SIGKILL)
    await home.process.start()
    await home.is_told(1)
    # For its host it believes the new certificate, since the key is the one that it knows.
    body = {"generation": 1, "document": bound(HOST, "pypi.allowed.test", version=2), "ingress_ports": []}
    assert await home.process.call("PUT", "/v1/sandboxes/alice/network", body) == (200, {"version": 2})
    assert await home.fetches() == f"served {HOST}/x\n"
    # Without a rule the host's own certificate is seen, which the program can't know.
    body = {"generation": 1, "document": bound(version=3), "ingress_ports": []}
    assert await home.process.call("PUT", "/v1/sandboxes/alice/network", body) == (200, {"version": 3})
    assert "CERTIFICATE_VERIFY_FAILED" in await home.fetches()
    assert home.secrets() == [f"Bearer {SECRET}"]
