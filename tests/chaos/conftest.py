"""Tests here kill services of a stack of their own, so that no other test meets the ruins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.live import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a complete stack."""
    for item in items:
        if "/tests/chaos/" in str(item.path):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="module")
def doomed() -> Iterator[Stack]:
    """A complete Gatehouse whose services may be killed."""
    with running_stack(GATEHOUSE_POOL_SIZE="4") as stack:
        yield stack
