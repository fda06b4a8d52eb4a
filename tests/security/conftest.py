"""Two sandboxes of two tenants on one node: Acme's, and that of Evil Corp, where Mallory is root."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from tests.node.rig import ACME, EVIL_CORP, Rig, new_home, running_node
from tests.security.inside import Inside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A node and what runs on it."""

    rig: Rig
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
        return Inside(await self.rig.start(tenant=tenant, **changes))

    async def end(self, inside: Inside) -> str:
        """End a sandbox and return why the node says that it ended."""
        return await self.rig.keeper.stop(inside.sandbox.spec.id, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Place]:
    """Return a node with the two sandboxes that the tests of one module share; nothing of it stays on the host."""
    with new_home() as home:
        async with running_node(home) as running:
            acme = Inside(await running.start(tenant=ACME))
            mallory = Inside(await running.start(tenant=EVIL_CORP))
            yield Place(running, acme, mallory)
            await running.stop_all()
