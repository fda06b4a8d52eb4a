"""State tables: which state may follow which, said once per kind of object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekit.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class StateTable:
    """The allowed moves between states.

    `transitions` maps each state to the states that may follow it; a terminal state has none. A table that
    names an unknown state, or a terminal state with followers, is a mistake in our own code and raises
    ValueError.
    """

    def __init__(self, transitions: Mapping[str, Collection[str]], initial: str, terminal: Collection[str]) -> None:
        self.transitions = {state: frozenset(followers) for state, followers in transitions.items()}
        self.initial = initial
        self.terminal = frozenset(terminal)
        self.states = frozenset(self.transitions) | self.terminal
        named = frozenset().union(*self.transitions.values()) | {initial}
        if unknown := named - self.states:
            raise ValueError(f"unknown states: {sorted(unknown)}")
        if moving := [state for state in self.terminal if self.transitions.get(state)]:
            raise ValueError(f"terminal states with followers: {sorted(moving)}")

    def can(self, old: str, new: str) -> bool:
        """Say whether `new` may follow `old`."""
        return new in self.transitions.get(old, frozenset())

    def require(self, old: str, new: str) -> None:
        """Raise Conflict unless `new` may follow `old`."""
        if not self.can(old, new):
            raise Conflict(f"The state {old} cannot become {new}.", state=old)

    def before(self, new: str) -> frozenset[str]:
        """Return the states that `new` may follow: the condition of a conditional UPDATE."""
        return frozenset(state for state, followers in self.transitions.items() if new in followers)
