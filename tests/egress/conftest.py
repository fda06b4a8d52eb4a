"""Alice's sandbox at a running egress, in an internet of the tests' own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.inside import Alice, ControlPlane
from tests.egress.place import ALICE, Node, Process, Socket, document
from tests.egress.servers import Names, Server
from tests.internet.certificates import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.egress.servers import Handler


@dataclass
class Place:
    """Everything that a test speaks to."""

    directory: Path
    process: Process
    node: Node
    names: Names
    alice: Socket
    namespace: str
    outside: str
    servers: list[Server] = field(default_factory=list)

    async def server(self, address: str, port: int, handler: Handler, context: ssl.SSLContext | None = None) -> Server:
        """Start a server in the internet."""
        made = Server(handler)
        await made.start(self.namespace, address, port, context)
        self.servers.append(made)
        return made


@pytest.fixture(scope="session")
def namespaces() -> Iterator[tuple[str, str]]:
    """The namespaces of egress and of the internet."""
    with nets.internet() as made:
        yield made


@pytest.fixture(scope="module")
def quick() -> dict[str, float]:
    """Limits of the process that differ from the usual ones; a test file that needs some overrides this."""
    return {}


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that vouches for the hosts of the internet, which an operator has made known to egress."""
    return Authority(tmp_path_factory.mktemp("hosts"))


@pytest.fixture(scope="module")
def process(
    tmp_path_factory: pytest.TempPathFactory, namespaces: tuple[str, str], quick: dict[str, float], hosts: Authority
) -> Iterator[Process]:
    """The running egress of a file's tests: each has a node and sandboxes of its own at it."""
    home = tmp_path_factory.mktemp("egress")
    made = Process(home, namespaces[0], broker=home / "broker.sock", ca_file=hosts.file, **quick)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def place(tmp_path: Path, namespaces: tuple[str, str], process: Process) -> AsyncIterator[Place]:
    """Egress with Alice's sandbox on the usual policy."""
    ours, theirs = namespaces
    names = Names()
    names.zone = {
        "api.allowed.test": [nets.API],
        "pypi.allowed.test": [nets.API],
        "a.wild.allowed.test": [nets.API],
        "plain.allowed.test": [nets.API],
        "db.allowed.test": [nets.API],
        "evil.test": [nets.EVIL],
    }
    await names.start(theirs, nets.RESOLVER)
    node = Node(process.control_path)
    alice = Socket(tmp_path / "egress.sock")
    made = Place(tmp_path, process, node, names, alice, theirs, ours)
    try:
        await node.connect()
        assert (await node.put(document(), ident=ALICE, listener=alice.listener))["op"] == "done"
        assert (await node.ask("synced"))["op"] == "done"
        yield made
    finally:
        await made.node.leave()
        await alice.close()
        await names.stop()
        for server in made.servers:
            await server.stop()


@pytest.fixture
async def plane(process: Process) -> AsyncIterator[ControlPlane]:
    """What stands in for the control plane at its internal socket."""
    made = ControlPlane(process.home / "run" / "internal.sock")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def alice(place: Place, plane: ControlPlane) -> Alice:
    """Alice in a sandbox with one header rule."""
    made = Alice(place, plane)
    await made.put()
    return made
