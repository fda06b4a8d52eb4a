"""Tells open pages that a chain has grown. What is new they look up themselves, each with its own rights and filters.

A message names no event, so that losing one or getting it twice does no harm.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError

from audit.models import Seal

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = structlog.get_logger("gatehouse.audit")

POLL_S = 0.5
_AT_ONCE = 5000


def group(chain: str | None) -> str:
    """Return the group of pages that show a chain; with None, of those that show all."""
    return f"audit.{chain or 'all'}"


async def tell(chains: Iterable[str]) -> None:
    """Tell the pages that show these chains."""
    layer = get_channel_layer()
    for chain in (*sorted(set(chains)), None):
        await layer.group_send(group(chain), {"type": "audit.grown"})


def announce(chains: Iterable[str]) -> None:
    """Tell the pages of all web processes. For the sealer, after its commit; without Redis they look themselves."""
    if settings.REDIS_URL and (grown := set(chains)):
        async_to_sync(tell)(grown)


class Watch:
    """Looks for new seals while anybody in this process watches. With Redis the sealer tells, and nobody looks."""

    def __init__(self) -> None:
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None

    def join(self) -> None:
        """Begin to look, if nobody did before."""
        self._watchers += 1
        if self._task is None and not settings.REDIS_URL:
            self._task = asyncio.get_running_loop().create_task(self._look())

    def leave(self) -> None:
        """Stop looking when the last one leaves."""
        self._watchers -= 1
        if self._watchers == 0 and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look(self) -> None:
        seen: int | None = None
        while True:
            try:
                seen, grown = await database_sync_to_async(_grown_since)(seen)
                if grown:
                    await tell(grown)
            except DatabaseError as error:
                # The pages stay open over a database's restart.
                logger.warning("audit_feed_waits", reason=str(error))
            await asyncio.sleep(POLL_S)


def _grown_since(seen: int | None) -> tuple[int, set[str]]:
    if seen is None:
        newest: int | None = Seal.objects.order_by("-pk").values_list("pk", flat=True).first()
        return newest or 0, set()
    rows = list(Seal.objects.filter(pk__gt=seen).order_by("pk").values_list("pk", "chain")[:_AT_ONCE])
    return (rows[-1][0] if rows else seen), {chain for _, chain in rows}


watch = Watch()
