"""The test internet as fixtures: one for all tests of a process, as new for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.internet.world import Internet, running_internet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def one_internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """Return the internet of this process, for fixtures that live longer than one test."""
    with running_internet(tmp_path_factory.mktemp("internet")) as internet:
        yield internet


@pytest.fixture
def internet(one_internet: Internet) -> Internet:
    """Return the internet with nothing recorded and every name as usual."""
    one_internet.reset()
    return one_internet
