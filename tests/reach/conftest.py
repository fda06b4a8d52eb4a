"""A user in a sandbox who has not set anything up for the network, and the internet that she wants to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.internet.fixtures import internet, one_internet
from tests.node import guestcalls
from tests.node.rig import WORLDS, eventually, open_network
from tests.reach import luggage
from tests.security.conftest import way_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxes.node.sandbox import Sandbox
    from tests.internet.world import Internet
    from tests.node.rig import Rig

__all__ = ["internet", "one_internet", "way_out"]

RULES = ("api.allowed.test:443", "pypi.allowed.test:443", "npm.allowed.test:443", "git.allowed.test:443")
_SIZE = {"cpu_milli": 2000, "memory_mib": 768, "disk_mib": 768, "pids": 256}
_AUTHORITY = "/home/user/authority.pem"
# The servers' certificates are from an authority of the tests' own, which no program knows by itself. That is all that
# is set up.
_TRUST = dict.fromkeys(
    ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE"),
    _AUTHORITY,
)
# How a sandbox is found, and how it is to a program that was never told of a proxy.
AS_IT_IS, WITHOUT_PROXY = WAYS = ("as it is", "without a proxy")
both_ways = pytest.mark.parametrize("way", WAYS)
_FORGET = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; "


@dataclass(frozen=True)
class Alice:
    """A user in a sandbox that may reach the hosts of `RULES`."""

    rig: Rig
    internet: Internet
    sandbox: Sandbox
    already: int
    """How many of the sandbox's events are of earlier tests."""

    async def run(self, command: str, *, way: str = AS_IT_IS) -> guestcalls.Result:
        """Run a shell command line and return how it ended."""
        socket_path = self.sandbox.runtime.socket_path(self.sandbox.state)
        return await guestcalls.run(socket_path, command if way == AS_IT_IS else _FORGET + command)

    async def text(self, command: str, *, way: str = AS_IT_IS) -> str:
        """Return what a command line prints; it must succeed."""
        done = await self.run(command, way=way)
        assert (done.exit_code, done.error) == (0, None), done
        return done.stdout

    async def bring(self, archive: bytes) -> None:
        """Unpack what the template lacks."""
        socket_path = self.sandbox.runtime.socket_path(self.sandbox.state)
        await luggage.upload(socket_path, "/home/user/luggage.tar", archive)
        await self.text("tar -C / -xf luggage.tar && rm luggage.tar")

    async def refusal(self, code: str, host: str) -> dict[str, Any]:
        """Return the one refusal that was recorded; it is of this host, and nothing was connected to."""
        await eventually(lambda: self.flows(code))
        (denial,) = self.flows(code)
        assert denial["host"] == host
        assert self.internet.sites.connections == []
        return denial

    def flows(self, code: str) -> list[dict[str, Any]]:
        """Return the details and the reasons of the events with a code."""
        events = self.rig.events(self.sandbox.spec.id)[self.already :]
        return [event["details"] | {"reason": event["reason"]} for event in events if event["code"] == code]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["process", "container"])
async def sandbox(request: pytest.FixtureRequest, way_out: Rig, one_internet: Internet) -> AsyncIterator[Sandbox]:
    """Return a sandbox of each tier that all tests of a module share."""
    started = await way_out.start(env=_TRUST, resources=_SIZE, **(WORLDS[request.param] | open_network(*RULES)))
    await luggage.upload(started.runtime.socket_path(started.state), _AUTHORITY, one_internet.authority.pem.encode())
    yield started
    await way_out.keeper.stop(started.spec.id, None)


@pytest.fixture
def alice(way_out: Rig, internet: Internet, sandbox: Sandbox) -> Alice:
    """Return Alice, and an internet where nothing has happened yet."""
    return Alice(way_out, internet, sandbox, len(way_out.events(sandbox.spec.id)))
