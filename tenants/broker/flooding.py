"""How many refusals of one sandbox are written down one by one: enough for every use of a token that means something.

A program that asks in a loop would fill the ledger and keep the database from everybody else. Beyond the limit its
refusals are counted, and the next one that is written says how many there were. What it may do, it goes on doing.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 300
WINDOW_S = 60.0
_MOST_CALLERS = 10_000


@dataclass(slots=True)
class _Window:
    began: float
    count: int = 0
    unwritten: int = 0


class Refusals:
    """Counts what this process refused to each caller of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def one_more(self, caller: str) -> int | None:
        """Return how many were not written down before this one; None when this one is not either."""
        now = self._clock()
        with self._lock:
            window = self._windows.get(caller) or self._begin(caller, now)
            if now - window.began >= WINDOW_S:
                window.began, window.count = now, 0
            window.count += 1
            if window.count > MOST:
                window.unwritten += 1
                return None
            before, window.unwritten = window.unwritten, 0
            return before

    def wait_s(self, caller: str) -> int:
        """Return after how many seconds refusals of a caller are written down again."""
        with self._lock:
            window = self._windows.get(caller)
        return 1 if window is None else max(1, round(window.began + WINDOW_S - self._clock()))

    def clear(self) -> None:
        """Forget all, as a new process does."""
        with self._lock:
            self._windows.clear()

    def _begin(self, caller: str, now: float) -> _Window:
        if len(self._windows) >= _MOST_CALLERS:
            kept = {name: one for name, one in self._windows.items() if now - one.began < WINDOW_S}
            self._windows = kept if len(kept) < _MOST_CALLERS else {}
        window = self._windows[caller] = _Window(now)
        return window
