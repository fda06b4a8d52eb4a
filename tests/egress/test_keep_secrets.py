"""What egress knows stays in its memory: no other process of its user sees it, no log has it, and it dies with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.inside import BOUND, HOST, PLACEHOLDER, RULE, SECRET
from tests.egress.place import Node, Process
from tests.egress.servers import ok
from tests.live import ROOT

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from tests.egress.inside import Alice
    from tests.internet.certificates import Authority


@pytest.fixture(scope="module")
def process(
    tmp_path_factory: pytest.TempPathFactory, namespaces: tuple[str, str], hosts: Authority
) -> Iterator[Process]:
    """Egress that tells everything that it ever tells."""
    home = tmp_path_factory.mktemp("egress")
    made = Process(home, namespaces[0], broker=home / "broker.sock", ca_file=hosts.file)
    made.log, made.level = home / "egress.log", "DEBUG"
    made.start()
    yield made
    made.stop()


def pid_of(alice: Alice) -> int:
    process = alice.place.process.process
    assert process is not None
    return process.pid


async def test_it_is_not_in_logs_even_at_the_lowest_level(alice: Alice, hosts: Authority) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    await alice.put(rules=[RULE], placeholders=[BOUND])
    assert await (await alice.ask("GET /", f"X-Key: {PLACEHOLDER}")).answer() == (200, b"ok")
    nonsense = ({"set": [["X", SECRET + end]], "swap": [], "needles": [SECRET]} for end in ("\r\n", "\x01"))
    for status, answer in ((500, SECRET), *((200, one) for one in nonsense), (200, {"set": SECRET})):
        alice.plane.status, alice.plane.answer = status, answer
        assert (await (await alice.ask()).answer())[0] == 503
    await alice.place.node.put({"version": 1, "placeholders": [BOUND]}, ca={"certificate": "x", "key": SECRET})
    log = alice.place.process.log
    assert log is not None
    told = log.read_text()
    assert "egress_credentials_failed" in told
    for hidden in (SECRET, PLACEHOLDER, "PRIVATE KEY", SECRET.encode().hex()):
        assert hidden not in told
    assert SECRET not in str(alice.place.node.events)


def test_its_environment_holds_none(alice: Alice) -> None:
    environment = Path(f"/proc/{pid_of(alice)}/environ").read_bytes()
    assert b"GATEHOUSE_HOME" in environment
    assert SECRET.encode() not in environment


def test_no_core_of_it_is_written(alice: Alice) -> None:
    limits = Path(f"/proc/{pid_of(alice)}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]


def test_its_own_user_can_not_look_into_it() -> None:
    command = ["setpriv", "--clear-groups", "--reuid=65534", "--regid=65534", "--"]
    holds = "from corekit import ownmemory; ownmemory.keep_private(); print(1, flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
    with subprocess.Popen(
        [*command, sys.executable, "-c", holds], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == b"1\n"
        look = [*command, "head", "-c1"]
        seen = {
            name: subprocess.run([*look, f"/proc/{held.pid}/{name}"], capture_output=True, check=False)
            for name in ("environ", "mem", "maps", "fd/0")
        }
        held.kill()
    assert {name: (done.returncode, done.stdout) for name, done in seen.items()} == dict.fromkeys(seen, (1, b""))


async def test_it_dies_in_the_middle_of_a_request(alice: Alice, hosts: Authority) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read():
            pass

    server = await alice.place.server(nets.API, 443, silent, hosts.context(HOST))
    client = await alice.ask("POST /", body=b"half of it")
    await server.began.wait()
    alice.place.process.kill()
    assert await client.rest() == b""
    await server.ended.wait()
    # The next one knows nothing until the node has told it, and then it goes on with the same authority.
    alice.place.process.start()
    await alice.place.node.lost.wait()
    await alice.place.node.close()
    node = Node(alice.place.process.control_path)
    await node.connect()
    alice.place.node = node
    before = alice.context("http/1.1")
    await alice.put(listener=True)
    await node.ask("synced")
    assert (await alice.https(context=before)).writer.get_extra_info("ssl_object").version() == "TLSv1.3"
