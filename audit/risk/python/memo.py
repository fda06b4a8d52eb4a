"""What has been found out about a file so far, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.risk.python.values import Value

# A node, a name in a scope, or a function with what it is given.
Key = int | tuple[Any, ...]
Frame = dict[tuple[int, str], "Value"]
# How many assumptions stand on one another.
MAX_FRAMES = 3


class Memo:
    """Answers are kept as long as they hold: for good, until all calls are known, or for one assumption.

    An assumption (a frame) says what a function's parameters or a comprehension's variables are for once. What does not
    depend on such names is settled: it is found out only once, however many assumptions are tried.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        # What holds whatever else is found out.
        self.settled: dict[Key, Value] = {}
        self._guessed: dict[Key, Value] = {}
        # What holds for the innermost frame, and whether it depends on more than that.
        self._layer: dict[Key, tuple[Value, bool]] = {}
        # How often something unsettled was met, and how often anything but a name that the innermost frame sets.
        self.met = self._other = 0

    def get(self, key: Key) -> Value | None:
        """Return what is known, if it holds here."""
        known = self.settled.get(key)
        return self.unsettled(key) if known is None else known

    def unsettled(self, key: Key) -> Value | None:
        """Return what is known for now of something that is not settled."""
        if not self.frames:
            known = self._guessed.get(key)
            if known is not None:
                self.guess()
            return known
        found = self._layer.get(key)
        if found is None:
            return None
        self.met += 1
        self._other += found[1]
        return found[0]

    def put(self, key: Key, value: Value, since: int) -> None:
        """Keep an answer, knowing by what was `met` since the work on it began how long it holds."""
        if self.met == since:
            self.settled[key] = value
        elif self.frames:
            self._layer[key] = (value, self._other != 0)
        else:
            self._guessed[key] = value

    def assumed(self, key: tuple[int, str]) -> Value | None:
        """Return what an assumption says about a name."""
        for depth, frame in enumerate(reversed(self.frames)):
            if key in frame:
                self.met += 1
                self._other += depth > 0
                return frame[key]
        return None

    def guess(self) -> None:
        """Note that something was met that an assumption could change, or that only all calls tell."""
        self.met += 1
        self._other += 1

    def under(self, frame: Frame, work: Callable[[], Value]) -> Value:
        """Return what comes out when the names of a frame are what it says."""
        layer, met, other = self._layer, self.met, self._other
        self.frames.append(frame)
        self._layer, self.met, self._other = {}, 0, 0
        try:
            return work()
        finally:
            self.frames.pop()
            self._layer, self.met, self._other = layer, met + self._other, other + self._other

    def forget_guesses(self) -> None:
        """Drop what was found out before all calls were known."""
        self._guessed.clear()
