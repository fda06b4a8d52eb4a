"""What has been found out about a file so far, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.risk.python.values import Value

# A node, or a name in a scope.
Key = int | tuple[int, str]
Frame = dict[tuple[int, str], "Value"]
Mark = tuple[int, int]


class Memo:
    """Answers are kept as long as they hold: for good, until all calls are known, or for one assumption.

    An assumption (a frame) says what a function's parameters or a comprehension's variables are for once. What does not
    depend on such names is found out only once, however many assumptions are tried.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        # How often something was taken for granted that is only known when all calls are.
        self.guesses = 0
        self._kept: dict[Key, Value] = {}
        self._guessed: set[Key] = set()
        # Kept answers that depend on a parameter or a variable of a comprehension.
        self._varying: set[Key] = set()
        self._layer: dict[Key, tuple[Value, bool]] = {}
        # How often such a name was met: one that the innermost frame sets, and any other.
        self._own = self._foreign = 0

    def get(self, key: Key) -> Value | None:
        """Return what is known, if it holds here."""
        if self.frames:
            found = self._layer.get(key)
            if found is not None:
                self._met(own=not found[1])
                return found[0]
            if key in self._varying:
                return None
        known = self._kept.get(key)
        if known is not None:
            self.guesses += key in self._guessed
            self._foreign += key in self._varying
        return known

    def mark(self) -> Mark:
        """Return where the work on an answer begins."""
        return self.guesses, self._foreign + self._own

    def put(self, key: Key, value: Value, since: Mark) -> None:
        """Keep an answer, knowing by what was met on the way how long it holds."""
        guessed, varying = self.guesses != since[0], self._foreign + self._own != since[1]
        if self.frames and (guessed or varying):
            self._layer[key] = (value, guessed or self._foreign != 0)
            return
        self._kept[key] = value
        if guessed:
            self._guessed.add(key)
        if varying:
            self._varying.add(key)

    def assumed(self, key: tuple[int, str]) -> Value | None:
        """Return what an assumption says about a name."""
        for depth, frame in enumerate(reversed(self.frames)):
            if key in frame:
                self._met(own=depth == 0)
                return frame[key]
        return None

    def vary(self) -> None:
        """Note that a name was met which an assumption could set."""
        self._met(own=False)

    def under(self, frame: Frame, work: Callable[[], Value]) -> Value:
        """Return what comes out when the names of a frame are what it says."""
        outer = self._layer, self._own, self._foreign
        self.frames.append(frame)
        self._layer, self._own, self._foreign = {}, 0, 0
        try:
            return work()
        finally:
            self.frames.pop()
            met = self._foreign
            self._layer, self._own, self._foreign = outer
            self._foreign += met

    def forget_guesses(self) -> None:
        """Drop what was found out before all calls were known."""
        for key in self._guessed:
            self._kept.pop(key, None)
            self._varying.discard(key)
        self._guessed.clear()

    def _met(self, *, own: bool) -> None:
        if own:
            self._own += 1
        else:
            self._foreign += 1
