"""Two sandboxes of two tenants on one node: Acme's, and that of Evil Corp, where Mallory has all that can be had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.internet.fixtures import internet, one_internet
from tests.node.rig import ACME, EVIL_CORP, WORLDS, Rig, new_home, open_network, running_node
from tests.security.inside import Inside
from tests.security.outbound import RULES, Outbound

# For tests that only make sense where somebody inside is root.
with_root = pytest.mark.parametrize("place", ["container"], indirect=True)
# For those about what only the profile `hardened` promises.
without_root = pytest.mark.parametrize("place", ["hardened", "process"], indirect=True)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.internet.world import Internet

__all__ = ["internet", "one_internet"]

# Where programs go out that know no proxy: gVisor has a network of its own, in which nothing can be led anywhere.
transparent_only = pytest.mark.parametrize("mallory", ["process", "container"], indirect=True)
any_runtime = pytest.mark.parametrize("mallory", ["process", "container", "gvisor"], indirect=True)
gvisor_only = pytest.mark.parametrize("mallory", ["gvisor"], indirect=True)
_WITH_A_WAY_OUT: dict[str, dict[str, Any]] = {
    "process": WORLDS["process"],
    "container": WORLDS["container"],
    "gvisor": WORLDS["container"]
    | {"runtime": "runsc", "resources": {"cpu_milli": 2000, "memory_mib": 384, "disk_mib": 64, "pids": 256}},
}


@dataclass(frozen=True)
class Place:
    """A node and what runs on it. Mallory is root where the world has a root."""

    rig: Rig
    world: str
    acme: Inside
    mallory: Inside

    @property
    def home(self) -> Path:
        """The node's home."""
        return self.rig.home

    @property
    def malus(self) -> Inside:
        """Mallory without root."""
        return replace(self.mallory, user="user")

    async def sandbox(self, tenant: str = EVIL_CORP, **changes: Any) -> Inside:
        """Start another sandbox for tests that wreck it."""
        return await _sandbox(self.rig, self.world, tenant, **changes)

    async def end(self, inside: Inside) -> str:
        """End a sandbox and return why the node says that it ended."""
        return await self.rig.keeper.stop(inside.sandbox.spec.id, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WORLDS)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Return a node with the two sandboxes that the tests of one module share; nothing of it stays on the host.

    A test runs in each way to isolate, unless it says otherwise: all keep the same promises.
    """
    world = str(request.param)
    with new_home() as home:
        async with running_node(home) as running:
            acme = await _sandbox(running, world, ACME)
            mallory = await _sandbox(running, world, EVIL_CORP)
            yield Place(running, world, acme, mallory)
            await running.stop_all()


async def _sandbox(rig: Rig, world: str, tenant: str, **changes: Any) -> Inside:
    sandbox = await rig.start(tenant=tenant, **(WORLDS[world] | changes))
    return Inside(sandbox, "root" if sandbox.spec.profile == "workstation" else "user")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def way_out(one_internet: Internet) -> AsyncIterator[Rig]:
    """Return a node whose sandboxes may have a way out, into the internet of the tests."""
    settings = one_internet.settings() | {"GATEHOUSE_NODE_EGRESS": "1"}
    with pytest.MonkeyPatch.context() as patch, new_home() as home:
        for name, value in settings.items():
            patch.setenv(name, value)
        async with running_node(home, **settings) as running:
            yield running
            await running.stop_all()


@pytest_asyncio.fixture(loop_scope="module")
async def mallory(request: pytest.FixtureRequest, way_out: Rig, internet: Internet) -> AsyncIterator[Outbound]:
    """Return Mallory in a new sandbox that may reach `RULES`, root where its world has a root."""
    wanted = _WITH_A_WAY_OUT[str(request.param)]
    sandbox = await way_out.start(tenant=EVIL_CORP, **(wanted | open_network(*RULES)))
    user = "root" if sandbox.spec.profile == "workstation" else "user"
    yield Outbound(way_out, internet, Inside(sandbox, user))
    await way_out.keeper.stop(sandbox.spec.id, None)
