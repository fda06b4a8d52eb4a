"""Cases from the field, one file a kind. Each runs through the public port, at every tier unless it says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2b import Sandbox

from tests.sdk.wire import Agent, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack

TEMPLATES = ("base", "base-hardened", "base-process", "base-gvisor")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a complete stack."""
    for item in items:
        if "/tests/cases/" in str(item.path):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="module")
def roomy_stack(stack: Stack) -> Stack:
    """The stack, with room for many sandboxes."""
    limits = ("max_sandboxes=100", "max_cpu_milli=1000000", "max_memory_mib=1000000", "max_disk_mib=1000000")
    stack.manage("quota", "set", "default", *limits, "creates_per_minute=100000")
    return stack


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    """Return the template that a test runs on, one of each way to isolate."""
    return str(request.param)


@pytest.fixture(scope="module")
def wire(roomy_stack: Stack) -> Iterator[Wire]:
    """Return a client of the bare protocol with the first tenant's key."""
    with Wire(roomy_stack.url, roomy_stack.key) as wire:
        yield wire


@pytest.fixture(scope="module")
def agent(wire: Wire, template: str) -> Iterator[Agent]:
    """Return the agent of the sandbox that the tests of one module share."""
    agent = wire.create(template, timeout=600)
    yield agent
    agent.kill()


@pytest.fixture(scope="module")
def sandbox(roomy_stack: Stack, agent: Agent) -> Sandbox:
    """Return the same sandbox as the SDK sees it."""
    return Sandbox.connect(agent.id, timeout=600, **roomy_stack.sdk)
