"""Tests here kill services of a stack of their own, so that no other test meets the ruins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.live import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a complete stack."""
    for item in items:
        if "/tests/chaos/" in str(item.path):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="module")
def database() -> Iterator[servers.Server | None]:
    """A PostgreSQL that may be killed, which the one of the whole run may not; None on the embedded set."""
    if "DATABASE_URL" not in os.environ:
        yield None
        return
    with servers.cluster() as server:
        yield server


@pytest.fixture(scope="module")
def doomed(database: servers.Server | None) -> Iterator[Stack]:
    """A complete Gatehouse whose services may be killed."""
    variables = {"GATEHOUSE_POOL_SIZE": "4"}
    if database is not None:
        variables["DATABASE_URL"] = database.url
    with running_stack(command=None, **variables) as stack:
        yield stack
