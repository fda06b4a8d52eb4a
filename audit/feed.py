"""Tells open pages that a chain has grown. What is new they look up themselves, each with its own rights and filters.

A message names no event, so that losing one or getting it twice does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING

import redis
import redis.asyncio
import structlog
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError

from audit.models import Seal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

logger = structlog.get_logger("gatehouse.audit")

TOPIC = "gatehouse.audit.grown"
POLL_S = 0.5
_AGAIN_S = 1.0
_AT_ONCE = 5000
# Said of all chains, when something may have been missed.
_EVERY: frozenset[str] = frozenset({"*"})


def announce(chains: Iterable[str]) -> None:
    """Tell all web processes which chains have grown. For the sealer, after its commit.

    Without Redis they look themselves; a Redis that is away costs the pages a few seconds, and the sealer nothing.
    """
    if not settings.REDIS_URL or not (names := " ".join(sorted(set(chains)))):
        return
    try:
        _redis(settings.REDIS_URL).publish(TOPIC, names)
    except redis.RedisError as error:
        logger.warning("audit_feed_untold", reason=str(error))


@functools.cache
def _redis(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)


class Watch:
    """Wakes the consumers of this process whose chain has grown; works only while there are any."""

    def __init__(self) -> None:
        # The chain that each consumer's channel is about; None is all of them.
        self._channels: dict[str, str | None] = {}
        self._task: asyncio.Task[None] | None = None

    def join(self, channel: str, chain: str | None) -> None:
        """Wake a channel from now on."""
        self._channels[channel] = chain
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def leave(self, channel: str) -> None:
        """Wake a channel no longer. After the last one nothing of the watch is left running."""
        self._channels.pop(channel, None)
        if not self._channels and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        async with contextlib.aclosing(heard() if settings.REDIS_URL else seen()) as news:
            async for grown in news:
                for channel, chain in list(self._channels.items()):
                    if grown is _EVERY or chain is None or chain in grown:
                        await get_channel_layer().send(channel, {"type": "audit.grown"})


async def seen() -> AsyncGenerator[frozenset[str], None]:
    """Yield chains that have grown, by looking for new seals."""
    newest: int | None = None
    while True:
        try:
            newest, grown = await database_sync_to_async(_grown_since)(newest)
        except DatabaseError as error:
            # The pages stay open over a database's restart.
            logger.warning("audit_feed_waits", reason=str(error))
        else:
            if grown:
                yield grown
        await asyncio.sleep(POLL_S)


def _grown_since(newest: int | None) -> tuple[int, frozenset[str]]:
    if newest is None:
        # What was sealed between a page's last look and this one.
        return Seal.objects.order_by("-pk").values_list("pk", flat=True).first() or 0, _EVERY
    rows = list(Seal.objects.filter(pk__gt=newest).order_by("pk").values_list("pk", "chain")[:_AT_ONCE])
    return (rows[-1][0] if rows else newest), frozenset(chain for _, chain in rows)


async def heard() -> AsyncGenerator[frozenset[str], None]:
    """Yield chains that have grown, as the sealer tells over Redis; all of them when a connection is new."""
    while True:
        try:
            # Hours may pass between two messages.
            client = redis.asyncio.from_url(str(settings.REDIS_URL), socket_timeout=None)
            async with client, client.pubsub() as subscription:
                await subscription.subscribe(TOPIC)
                yield _EVERY
                async for message in subscription.listen():
                    if message["type"] == "message":
                        yield frozenset(message["data"].decode().split())
        except redis.RedisError as error:
            logger.warning("audit_feed_waits", reason=str(error))
            await asyncio.sleep(_AGAIN_S)


watch = Watch()
