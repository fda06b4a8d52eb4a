"""The unchanged E2B SDK, pointed at a complete running Gatehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from e2b import AsyncSandbox, Sandbox

from tests.internet.fixtures import one_internet
from tests.sdk.wire import Agent, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.live import Stack

__all__ = ["one_internet"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a complete stack."""
    for item in items:
        if "/tests/sdk/" in str(item.path):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="session")
def roomy_stack(stack: Stack) -> Stack:
    """The stack, with room for suites that keep a sandbox a module and make many more."""
    limits = ("max_sandboxes=100", "max_cpu_milli=1000000", "max_memory_mib=1000000", "max_disk_mib=1000000")
    stack.manage("quota", "set", "default", *limits, "creates_per_minute=100000")
    return stack


@pytest.fixture
def sdk(stack: Stack) -> dict[str, Any]:
    """The options that point the SDK at the stack, with the first tenant's key."""
    return stack.sdk


@pytest.fixture
def sandbox(sdk: dict[str, Any]) -> Iterator[Sandbox]:
    """A fresh sandbox, gone after the test."""
    sandbox = Sandbox.create(timeout=120, **sdk)
    yield sandbox
    sandbox.kill()


@pytest.fixture
async def async_sandbox(sdk: dict[str, Any]) -> AsyncIterator[AsyncSandbox]:
    """A fresh sandbox of the async SDK, gone after the test."""
    sandbox = await AsyncSandbox.create(timeout=120, **sdk)
    yield sandbox
    await sandbox.kill()


@pytest.fixture(scope="session")
def wire(roomy_stack: Stack) -> Iterator[Wire]:
    """Return a client of the bare protocol with the first tenant's key."""
    with Wire(roomy_stack.url, roomy_stack.key) as wire:
        yield wire


@pytest.fixture(scope="module", params=["base", "base-process"])
def agent(request: pytest.FixtureRequest, wire: Wire) -> Iterator[Agent]:
    """Return the agent of a sandbox that the tests of one module share, one of each tier."""
    agent = wire.create(str(request.param), timeout=600)
    yield agent
    agent.kill()
