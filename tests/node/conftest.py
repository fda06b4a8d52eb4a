"""Nodes for tests: one per module where tests do not disturb each other, and empty homes for those that do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.internet.fixtures import internet, one_internet
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

__all__ = ["internet", "one_internet"]


@pytest.fixture
def node_home() -> Iterator[Path]:
    """Return a home of a node that this test alone uses."""
    with rig.new_home() as home:
        yield home


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[rig.Rig]:
    """Return a node without a pool that the tests of one module share."""
    with rig.new_home() as home:
        async with rig.running_node(home) as running:
            yield running


@pytest_asyncio.fixture(loop_scope="module")
async def clean_node(node: rig.Rig) -> AsyncIterator[rig.Rig]:
    """Return the module's node; after the test nothing of any sandbox may be left."""
    yield node
    await node.stop_all()
