"""Prepared members, kept per recipe: a create takes one, and the next is made while nobody waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

import structlog

from sandboxes.node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.node.members import Member
    from sandboxes.node.spec import Recipe

logger = structlog.get_logger()

# Recipes beyond these, the ones that were not asked for the longest, give their members up.
_MAX_RECIPES = 4


class Pool:
    """Single-use members. `size` is how many wait for each of the latest recipes; 0 turns preparing off."""

    def __init__(
        self,
        size: int,
        make: Callable[[Recipe], Awaitable[Member]],
        discard: Callable[[Member], Awaitable[None]],
    ) -> None:
        self._size = size
        self._make = make
        self._discard = discard
        self._waiting: OrderedDict[Recipe, deque[Member]] = OrderedDict()
        self._filling: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()

    async def take(self, recipe: Recipe) -> Member:
        """Return a member of the recipe; made on the spot when none waits."""
        members = self._shelf(recipe)
        self._wanted.set()
        while members:
            member = members.popleft()
            if member.waiting:
                return member
            await self._discard(member)
        return await self._make(recipe)

    def warm(self, recipe: Recipe) -> None:
        """Start preparing for a recipe that is likely to be asked for."""
        self._shelf(recipe)
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
        for members in self._waiting.values():
            while members:
                await self._discard(members.popleft())

    @property
    def counts(self) -> dict[str, int]:
        """How many members wait, per build."""
        found: dict[str, int] = {}
        for recipe, members in self._waiting.items():
            found[recipe.build] = found.get(recipe.build, 0) + len(members)
        return found

    def _shelf(self, recipe: Recipe) -> deque[Member]:
        members = self._waiting.setdefault(recipe, deque())
        self._waiting.move_to_end(recipe)
        return members

    async def _fill_forever(self) -> None:
        pause = 0.1
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._drop_forgotten()
                await self._fill()
                pause = 0.1
            except (NodeError, OSError) as error:
                # A full host or a broken template: creates say so themselves; the pool tries again later.
                logger.warning("pool_fill_failed", error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
                self._wanted.set()

    async def _drop_forgotten(self) -> None:
        while len(self._waiting) > _MAX_RECIPES:
            _recipe, members = self._waiting.popitem(last=False)
            for member in members:
                await self._discard(member)

    async def _fill(self) -> None:
        # The latest recipe first; a copy, because a create may bring a new one meanwhile.
        for recipe, members in reversed(tuple(self._waiting.items())):
            while len(members) < self._size:
                members.append(await self._make(recipe))
