"""What happened, on its way to the node: numbered, kept until the node has it on disk, repeats counted instead of told.

A sandbox has room for so many events that nobody took yet. While it has none, nothing new of it may pass: what can't be
recorded does not happen.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.egress.settings import Limits

Event = dict[str, Any]
Key = tuple[str, int, str, str, int, str]

# Of one sandbox within one window; what comes on top is counted in one event without a host.
_DISTINCT_REPEATS = 128


@dataclass(slots=True)
class _Repeats:
    """Equal refusals after the first one."""

    event: Event
    count: int = 0


@dataclass(slots=True)
class Fact:
    """One thing to record about a sandbox."""

    sandbox: str
    generation: int
    code: str
    decision: str
    reason: str | None = None
    outcome: str = "ok"
    duration_ms: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def event(self) -> Event:
        """Return it as the node takes it."""
        return {
            "id": os.urandom(16).hex(),
            "sandbox": self.sandbox,
            "generation": self.generation,
            "code": self.code,
            "phase": "fact",
            "decision": self.decision,
            "reason": self.reason,
            "outcome": self.outcome,
            "duration_ms": round(self.duration_ms, 3),
            "details": self.details,
        }


class Outbox:
    """Events that the node has not acknowledged. All methods belong to one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries: deque[Event] = deque()
        self._kept_of: Counter[str] = Counter()
        self._windows: dict[Key, _Repeats] = {}
        self._keys_of: Counter[str] = Counter()
        self._next = 1
        self.news: Callable[[], None] = lambda: None

    def has_room(self, sandbox: str) -> bool:
        """Tell whether something new of this sandbox could be recorded."""
        return self._kept_of[sandbox] < self._limits.events_per_sandbox and len(self._entries) < self._limits.events

    @property
    def empty(self) -> bool:
        """Tell whether the node has everything."""
        return not self._entries

    def record(self, fact: Fact) -> None:
        """Keep a fact. It is not refused: what was let through must be able to say how it ended."""
        self._append(fact.event())

    def refuse(self, fact: Fact) -> None:
        """Record a refusal at once; equal ones that follow within a while are told together, with their count."""
        details = fact.details
        host, port = str(details.get("host")), int(details.get("port") or 0)
        key = (fact.sandbox, fact.generation, fact.code, host, port, str(fact.reason))
        if key not in self._windows and self._keys_of[fact.sandbox] >= _DISTINCT_REPEATS:
            key = (fact.sandbox, fact.generation, fact.code, "", 0, "many")
            fact.details = {**details, "host": None, "port": None, "sni": None, "many": True}
        repeats = self._windows.get(key)
        if repeats is not None:
            repeats.event = fact.event()
            repeats.count += 1
            return
        self._windows[key] = _Repeats({})
        self._keys_of[fact.sandbox] += 1
        asyncio.get_running_loop().call_later(self._limits.repeat_seconds, self._tell, key)
        fact.details = {**fact.details, "count": 1}
        if self.has_room(fact.sandbox):
            self._append(fact.event())
        else:
            self._windows[key] = _Repeats(fact.event(), 1)

    def _tell(self, key: Key) -> None:
        repeats = self._windows[key]
        if repeats.count and not self.has_room(key[0]):
            # It waits until there is room, and counts on.
            asyncio.get_running_loop().call_later(self._limits.repeat_seconds, self._tell, key)
            return
        del self._windows[key]
        self._keys_of[key[0]] -= 1
        if not self._keys_of[key[0]]:
            del self._keys_of[key[0]]
        if repeats.count:
            repeats.event["details"]["count"] = repeats.count
            self._append(repeats.event)

    def _append(self, event: Event) -> None:
        self._entries.append({"seq": self._next, **event})
        self._next += 1
        self._kept_of[event["sandbox"]] += 1
        self.news()

    def after(self, seq: int, most: int) -> list[Event]:
        """Return up to `most` events with a higher number, oldest first."""
        if not self._entries or self._entries[-1]["seq"] <= seq:
            return []
        start = max(0, seq + 1 - self._entries[0]["seq"])
        return [self._entries[place] for place in range(start, min(start + most, len(self._entries)))]

    def acknowledge(self, upto: int) -> None:
        """Forget what the node has."""
        while self._entries and self._entries[0]["seq"] <= upto:
            sandbox = self._entries.popleft()["sandbox"]
            self._kept_of[sandbox] -= 1
            if not self._kept_of[sandbox]:
                del self._kept_of[sandbox]

    def settle(self) -> None:
        """Tell all repeats now: the process ends."""
        for key in tuple(self._windows):
            repeats = self._windows[key]
            if repeats.count:
                repeats.event["details"]["count"] = repeats.count
                self._append(repeats.event)
                repeats.count = 0
