"""Calls that are under way: how many a sandbox may have, and the end of those whose token counts no more."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from tenants.broker.problems import TooManyStreams
from tenants.states import TenantState
from tenants.tokenmodels import ScopedToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    Ask = Callable[[frozenset[str]], Awaitable[frozenset[str]]]

logger = structlog.get_logger("tenants.broker")

MOST_OF_ONE = 64
MOST = 2048
PAUSE_S = 1.0


class Streams:
    """Counts the calls of each sandbox."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @contextmanager
    def one_more(self, sandbox_id: str) -> Iterator[None]:
        """Count a call while the block runs. Raises TooManyStreams."""
        if self._counts[sandbox_id] >= MOST_OF_ONE or self._counts.total() >= MOST:
            raise TooManyStreams
        self._counts[sandbox_id] += 1
        try:
            yield
        finally:
            self._counts[sandbox_id] -= 1
            if not self._counts[sandbox_id]:
                del self._counts[sandbox_id]


class Watch:
    """Stops calls soon after their token was revoked, its sandbox ended or its tenant was suspended."""

    def __init__(self, ask: Ask, pause_s: float = PAUSE_S) -> None:
        self._ask = ask
        self._pause_s = pause_s
        self._calls: dict[asyncio.Task[None], str] = {}
        self._task: asyncio.Task[None] | None = None
        self.stopped: set[asyncio.Task[None]] = set()

    @contextmanager
    def over(self, task: asyncio.Task[None], token_id: str) -> Iterator[None]:
        """Watch over a call, which is cancelled and found in `stopped` when its token ends."""
        self._calls[task] = token_id
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            del self._calls[task]
            self.stopped.discard(task)

    async def _run(self) -> None:
        try:
            while self._calls:
                await asyncio.sleep(self._pause_s)
                if asked := frozenset(self._calls.values()):
                    self._stop(asked - await self._live_of(asked))
        finally:
            self._task = None

    async def _live_of(self, asked: frozenset[str]) -> frozenset[str]:
        try:
            return await self._ask(asked)
        except Exception:
            # The database is away: the next look tells.
            logger.exception("broker_watch_failed")
            return asked

    def _stop(self, ended: frozenset[str]) -> None:
        # Nothing is known of calls that began while this was being answered.
        for task, token_id in self._calls.items():
            if token_id in ended and not task.done():
                self.stopped.add(task)
                task.cancel()


def live_among(token_ids: Iterable[str]) -> frozenset[str]:
    """Return those of the tokens that were not ended. One that was used up or has expired lets its last call finish."""
    rows = ScopedToken.everywhere().filter(pk__in=token_ids, ended_at=None, tenant__state=TenantState.ACTIVE)
    return frozenset(rows.values_list("pk", flat=True))
