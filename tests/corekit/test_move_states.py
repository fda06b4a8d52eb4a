"""A state table allows what it names, and nothing else."""

from __future__ import annotations

import pytest

from corekit.errors import Conflict
from corekit.states import StateTable

DOOR = StateTable({"open": {"closed"}, "closed": {"open", "walled"}}, initial="open", terminal={"walled"})


def test_named_moves_are_allowed() -> None:
    assert DOOR.can("open", "closed")
    DOOR.require("closed", "walled")
    assert DOOR.before("open") == {"closed"}


def test_other_moves_are_refused() -> None:
    assert not DOOR.can("open", "walled")
    with pytest.raises(Conflict) as refused:
        DOOR.require("walled", "open")
    assert refused.value.details == {"state": "walled"}


def test_a_wrong_table_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="unknown states"):
        StateTable({"open": {"ajar"}}, initial="open", terminal=())
    with pytest.raises(ValueError, match="terminal states with followers"):
        StateTable({"open": {"closed"}, "closed": {"open"}}, initial="open", terminal={"closed"})
