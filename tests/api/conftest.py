"""Fixtures of this folder; the people come with API keys, and Olga, an operator, with her session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.rest import Operator, Rest
from tests.sandboxes.fixtures import alice, base, bob, mallory, node, vera

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

__all__ = ["alice", "base", "bob", "mallory", "node", "vera"]


@pytest.fixture
def rest(alice: Caller) -> Rest:
    """Return the REST API as Alice's key sees it."""
    return Rest(alice.secret)


@pytest.fixture
def mallorys_rest(mallory: Caller) -> Rest:
    """Return the REST API as Mallory's key sees it."""
    return Rest(mallory.secret)


@pytest.fixture
def olga(db: None) -> Operator:
    """Return the REST API as Olga, an operator with a session of the console, sees it."""
    return Operator()
