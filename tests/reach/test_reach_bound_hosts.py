"""Ordinary programs reach a host with a header rule with nothing set up: they trust the sandbox's own authority.

The control plane is a stand-in that gives every request the same secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.egress.inside import SECRET, ControlPlane
from tests.internet.world import API
from tests.node.rig import WORLDS, Rig, document, eventually, new_home, running_node
from tests.reach.clients import CLIENTS, every_client, run_line
from tests.reach.conftest import AS_IT_IS, both_ways
from tests.reach.indexes import git_repository, python_index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandboxes.node.sandbox import Sandbox
    from tests.internet.world import Internet
    from tests.reach.clients import Client
    from tests.reach.conftest import Alice

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTS = ("api.allowed.test", "pypi.allowed.test", "git.allowed.test")
_SIZE = {"cpu_milli": 2000, "memory_mib": 768, "disk_mib": 768, "pids": 256}
_WAYS: dict[str, dict[str, Any]] = {
    "process": WORLDS["process"],
    "container": WORLDS["container"],
    "gvisor": {**WORLDS["container"], "runtime": "runsc"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def way_out(one_internet: Internet) -> AsyncIterator[Rig]:
    """Return a node with a control plane behind its egress, which knows the authority of the internet's hosts."""
    with pytest.MonkeyPatch.context() as patch, new_home() as home:
        authorities = home / "hosts.pem"
        authorities.write_text(one_internet.authority.pem)
        authorities.chmod(0o644)
        settings = one_internet.settings() | {
            "GATEHOUSE_NODE_EGRESS": "1",
            "GATEHOUSE_EGRESS_CA_FILE": str(authorities),
        }
        for name, value in settings.items():
            patch.setenv(name, value)
        plane = ControlPlane(home / "run" / "internal.sock")
        await plane.start()
        (home / "run" / "internal.sock").chmod(0o666)
        async with running_node(home, **settings) as running:
            yield running
            await running.stop_all()
        await plane.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["process", "container"])
async def sandbox(request: pytest.FixtureRequest, way_out: Rig) -> AsyncIterator[Sandbox]:
    """Return a sandbox of each tier with a rule for every host that it may reach."""
    headers = {"Authorization": "Bearer ${secrets.key}"}
    rules = [{"host": host, "set": headers, "methods": None, "paths": None} for host in HOSTS]
    network = {"mode": "open", "document": document(*(f"{host}:443" for host in HOSTS), rules=rules)}
    started = await way_out.start(resources=_SIZE, network=network, **_WAYS[request.param])
    yield started
    await way_out.keeper.stop(started.spec.id, None)


async def _fetch(alice: Alice, client: Client, way: str) -> None:
    line = await run_line(alice, client, "https://api.allowed.test/hello")
    alice.internet.zone.address("api.allowed.test", API)
    assert await alice.text(line, way=way) == "served api.allowed.test/hello\n"
    (connection,) = alice.internet.sites.connections
    assert [one.headers["authorization"] for one in connection.requests] == [f"Bearer {SECRET}"]
    await eventually(lambda: alice.flows("egress.closed"))
    (flow,) = alice.flows("egress.closed")
    assert (flow["host"], flow["protocol"], flow["secrets_sent"]) == ("api.allowed.test", "tls", 1)
    assert alice.flows("egress.denied") == []


@every_client
@both_ways
async def test_the_program_says_nothing_and_the_host_gets_the_secret(alice: Alice, client: Client, way: str) -> None:
    await _fetch(alice, client, way)


@pytest.mark.parametrize("sandbox", ["gvisor"], indirect=True)
@pytest.mark.parametrize("client", [client for client in CLIENTS.values() if client.uses_proxy(AS_IT_IS)])
async def test_under_gvisor_too_by_the_proxy(alice: Alice, client: Client) -> None:
    await _fetch(alice, client, AS_IT_IS)


@both_ways
async def test_pip_installs(alice: Alice, way: str) -> None:
    python_index(alice.internet)
    line = "rm -rf target; pip install -q --target target --index-url https://pypi.allowed.test/simple greeting"
    await alice.text(line, way=way)
    assert {one.headers["authorization"] for one in alice.internet.sites.requests()} == {f"Bearer {SECRET}"}


@both_ways
async def test_git_clones(alice: Alice, way: str, tmp_path: Path) -> None:
    git_repository(alice.internet, tmp_path)
    await alice.text("rm -rf greeting; git clone -q https://git.allowed.test/greeting.git", way=way)
    assert await alice.text("cat greeting/greeting.txt") == "hello from the repository\n"
    assert {one.headers["authorization"] for one in alice.internet.sites.requests()} == {f"Bearer {SECRET}"}


async def test_one_that_trusts_another_authority_only_is_told_of(alice: Alice) -> None:
    done = await alice.run("curl -sS --cacert /etc/ssl/certs/ca-certificates.crt https://api.allowed.test/hello")
    assert done.exit_code == 60
    await eventually(lambda: alice.flows("egress.denied"))
    (flow,) = alice.flows("egress.denied")
    assert flow["reason"] == "cannot_rewrite"
    assert flow["detail"].endswith("It said tlsv1_alert_unknown_ca.")
    assert alice.internet.sites.connections == []
