"""What has been found out about a file so far, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.risk.python.values import Value

# A node, a name in a scope, or a function with what it is given.
Key = int | tuple[Any, ...]
Frame = dict[tuple[int, str], "Value"]


class Memo:
    """Answers are kept as long as they hold: for good, until all calls are known, or for one assumption.

    An assumption (a frame) says what a function's parameters or a comprehension's variables are for once. What does not
    depend on such names is settled: it is found out only once, however many assumptions are tried.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._kept: dict[Key, Value] = {}
        self._unsettled: set[Key] = set()
        # What holds for the innermost frame, and whether it depends on more than that.
        self._layer: dict[Key, tuple[Value, bool]] = {}
        # How often something unsettled was met: a name that the innermost frame sets, and anything else.
        self._own = self._other = 0

    def get(self, key: Key) -> Value | None:
        """Return what is known, if it holds here."""
        known = self._kept.get(key)
        if known is not None and key not in self._unsettled:
            return known
        if not self.frames:
            self._other += known is not None
            return known
        found = self._layer.get(key)
        if found is None:
            return None
        if found[1]:
            self._other += 1
        else:
            self._own += 1
        return found[0]

    def mark(self) -> int:
        """Return where the work on an answer begins."""
        return self._own + self._other

    def put(self, key: Key, value: Value, since: int) -> None:
        """Keep an answer, knowing by what was met on the way how long it holds."""
        if self._own + self._other == since:
            self._kept[key] = value
        elif self.frames:
            self._layer[key] = (value, self._other != 0)
        else:
            self._kept[key] = value
            self._unsettled.add(key)

    def keep(self, key: Key, value: Value) -> Value:
        """Keep an answer that rests on nothing."""
        self._kept[key] = value
        return value

    def assumed(self, key: tuple[int, str]) -> Value | None:
        """Return what an assumption says about a name."""
        for depth, frame in enumerate(reversed(self.frames)):
            if key in frame:
                if depth:
                    self._other += 1
                else:
                    self._own += 1
                return frame[key]
        return None

    def guess(self) -> None:
        """Note that something was met that an assumption could change, or that only all calls tell."""
        self._other += 1

    def under(self, frame: Frame, work: Callable[[], Value]) -> Value:
        """Return what comes out when the names of a frame are what it says."""
        layer, own, other = self._layer, self._own, self._other
        self.frames.append(frame)
        self._layer, self._own, self._other = {}, 0, 0
        try:
            return work()
        finally:
            self.frames.pop()
            self._layer, self._own, self._other = layer, own, other + self._other

    def forget_guesses(self) -> None:
        """Drop what was found out before all calls were known."""
        for key in self._unsettled:
            self._kept.pop(key, None)
        self._unsettled.clear()
