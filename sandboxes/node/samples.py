"""What each sandbox used, every five seconds, as far back as an hour."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from array import array
from typing import TYPE_CHECKING

from corekit.clock import epoch_ms

if TYPE_CHECKING:
    from sandboxes.node.sandbox import Sandbox

_PERIOD_S = 5.0
# The first one waits until whoever started the sandbox has its answer.
_FIRST_S = 0.1
# Between two sandboxes' samples the loop does what else there is to do, however many are due.
_GAP_S = 0.001
_HOUR_OF_SAMPLES = 720

_COUNTERS = ("at", "cpu_usec", "memory_bytes", "memory_cache_bytes", "pids", "disk_used_bytes", "oom_kills")
_FIELDS = (*_COUNTERS, "pids_refused")

Sample = dict[str, int]


def measure(sandbox: Sandbox) -> Sample:
    """Return what the sandbox uses now and what it may use, read from the host's side."""
    stats = sandbox.runtime.stats(sandbox.state)
    return {
        "at": epoch_ms(),
        "cpu_usec": stats.cpu_usec,
        "memory_bytes": stats.memory_bytes,
        "memory_cache_bytes": stats.memory_cache_bytes,
        "pids": stats.pids,
        "disk_used_bytes": sandbox.runtime.disk_used_bytes(sandbox.state),
        "oom_kills": stats.oom_kills,
        "pids_refused": stats.pids_refused,
    } | _limits(sandbox)


def samples(sandbox: Sandbox, start_ms: int, end_ms: int) -> list[Sample]:
    """Return what `measure` said in a window, both ends included, oldest first."""
    limits = _limits(sandbox)
    return [sample | limits for sample in sandbox.samples.between(start_ms, end_ms)]


def _limits(sandbox: Sandbox) -> Sample:
    resources = sandbox.spec.resources
    return {
        "cpu_milli": resources.cpu_milli,
        "memory_mib": resources.memory_mib,
        "disk_mib": resources.disk_mib,
    }


class Ring:
    """The latest samples of one sandbox, in 64 bytes each; the oldest goes when an hour is full."""

    def __init__(self, capacity: int = _HOUR_OF_SAMPLES) -> None:
        self._capacity = capacity
        self._values = array("q")
        self._oldest = 0

    def add(self, sample: Sample) -> None:
        """Keep a sample."""
        row = array("q", (sample[name] for name in _FIELDS))
        if len(self._values) < self._capacity * len(_FIELDS):
            self._values.extend(row)
        else:
            start = self._oldest * len(_FIELDS)
            self._values[start : start + len(_FIELDS)] = row
            self._oldest = (self._oldest + 1) % self._capacity

    def __len__(self) -> int:
        return len(self._values) // len(_FIELDS)

    def between(self, start_ms: int, end_ms: int) -> list[Sample]:
        """Return the samples of a window, both ends included, oldest first."""
        found = []
        for number in range(len(self)):
            start = (self._oldest + number) % len(self) * len(_FIELDS)
            if start_ms <= self._values[start] <= end_ms:
                found.append(dict(zip(_FIELDS, self._values[start : start + len(_FIELDS)], strict=True)))
        return found


class Sampler:
    """Measures all sandboxes in turn, one at a time, so that a thousand cost no more at once than one does."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int]] = []
        self._watched: dict[int, Sandbox] = {}
        self._tickets = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, sandbox: Sandbox) -> None:
        """Begin to measure a sandbox, or do it anew: the first sample comes at once."""
        self.forget(sandbox)
        sandbox.sampling = next(self._tickets)
        self._watched[sandbox.sampling] = sandbox
        heapq.heappush(self._due, (asyncio.get_running_loop().time() + _FIRST_S, sandbox.sampling))
        if self._timer is not None:
            self._timer.cancel()
        self._arm()

    def forget(self, sandbox: Sandbox) -> None:
        """Measure the sandbox no more; what was measured stays. Safe to repeat."""
        if sandbox.sampling is not None:
            self._watched.pop(sandbox.sampling, None)
            sandbox.sampling = None

    def _arm(self) -> None:
        self._timer = None
        if self._due:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._due[0][0], loop.time() + _GAP_S), self._take)

    def _take(self) -> None:
        _due, ticket = heapq.heappop(self._due)
        sandbox = self._watched.get(ticket)
        try:
            if sandbox is not None:
                heapq.heappush(self._due, (asyncio.get_running_loop().time() + _PERIOD_S, ticket))
                sandbox.samples.add(measure(sandbox))
        finally:
            self._arm()

    def close(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
