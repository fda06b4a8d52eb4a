"""Prepared members, kept per recipe: a create takes one, and the next is made while nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from sandboxes.node.errors import NodeError, UnknownBuild

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.node.members import Member
    from sandboxes.node.spec import Recipe

logger = structlog.get_logger()

# Recipes beyond these, the ones that were not asked for the longest, give their members up.
_MAX_RECIPES = 4
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0


@dataclass
class _Shelf:
    """The members of one recipe, how many there are to be, and until when nothing is tried after a failure."""

    target: int = 0
    members: deque[Member] = field(default_factory=deque)
    rests_until: float = 0.0
    pause: float = _FIRST_PAUSE_S


class Pool:
    """Single-use members. `size` is how many may wait for each of the latest recipes; 0 turns preparing off.

    What is asked for once is prepared once; each time it is asked for again twice as many, up to `size`.
    """

    def __init__(
        self,
        size: int,
        make: Callable[[Recipe], Awaitable[Member]],
        discard: Callable[[Member], Awaitable[None]],
    ) -> None:
        self._size = size
        self._make = make
        self._discard = discard
        self._shelves: OrderedDict[Recipe, _Shelf] = OrderedDict()
        self._filling: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()

    async def take(self, recipe: Recipe) -> Member:
        """Return a member of the recipe; made on the spot when none waits."""
        if self._size:
            shelf = self._shelf(recipe)
            shelf.target = min(self._size, max(1, shelf.target * 2))
            self._wanted.set()
            while shelf.members:
                member = shelf.members.popleft()
                if member.waiting:
                    return member
                await self._discard(member)
        return await self._make(recipe)

    def warm(self, recipe: Recipe, count: int | None = None) -> None:
        """Start preparing for a recipe that is likely to be asked for; `count` members, or as many as there may be."""
        if self._size:
            self._shelf(recipe).target = min(self._size, count or self._size)
            self._wanted.set()

    def start(self) -> None:
        """Begin to prepare in the background."""
        if self._size:
            self._filling = asyncio.create_task(self._fill_forever(), name="pool")

    async def stop(self) -> None:
        """Stop preparing and give every waiting member up."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        for shelf in self._shelves.values():
            while shelf.members:
                await self._discard(shelf.members.popleft())

    @property
    def counts(self) -> dict[str, int]:
        """How many members wait, per build."""
        found: dict[str, int] = {}
        for recipe, shelf in self._shelves.items():
            found[recipe.build] = found.get(recipe.build, 0) + len(shelf.members)
        return found

    def _shelf(self, recipe: Recipe) -> _Shelf:
        shelf = self._shelves.setdefault(recipe, _Shelf())
        self._shelves.move_to_end(recipe)
        return shelf

    async def _fill_forever(self) -> None:
        while True:
            self._wanted.clear()
            short = [recipe for recipe, shelf in self._shelves.items() if len(shelf.members) < shelf.target]
            now = asyncio.get_running_loop().time()
            if ready := [recipe for recipe in short if self._shelves[recipe].rests_until <= now]:
                await self._add(ready[-1])  # the one that was asked for last
                await self._drop_forgotten()
            else:
                await self._wait(min((self._shelves[recipe].rests_until for recipe in short), default=None))

    async def _wait(self, until: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wanted.wait()

    async def _add(self, recipe: Recipe) -> None:
        shelf = self._shelves[recipe]
        try:
            shelf.members.append(await self._make(recipe))
            shelf.pause = _FIRST_PAUSE_S
        except UnknownBuild:
            del self._shelves[recipe]
        except (NodeError, OSError) as error:
            # A full host or a broken template: creates say so themselves; the pool tries this recipe again later.
            logger.warning("pool_fill_failed", build=recipe.build, error=str(error))
            shelf.rests_until = asyncio.get_running_loop().time() + shelf.pause
            shelf.pause = min(shelf.pause * 2, _LONGEST_PAUSE_S)

    async def _drop_forgotten(self) -> None:
        while len(self._shelves) > _MAX_RECIPES:
            _recipe, shelf = self._shelves.popitem(last=False)
            for member in shelf.members:
                await self._discard(member)
