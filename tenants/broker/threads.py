"""The broker's threads: for the database and the vaults, which wait, beside an event loop, which must not."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from django.db import close_old_connections

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 16


class Threads:
    """Runs functions beside the loop, each in the context of whoever asked for it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="broker")
        self._last: set[asyncio.Task[object]] = set()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns."""

        def in_thread() -> T:
            close_old_connections()
            try:
                return function(*args, **kwargs)
            finally:
                close_old_connections()

        # The thread that does the work is to know whose request it is.
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, in_thread)

    async def run_to_the_end(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the same, also when who asked is cancelled meanwhile."""
        task = asyncio.get_running_loop().create_task(self.run(function, *args, **kwargs))
        self._last.add(task)
        task.add_done_callback(self._last.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Return once all of that has run."""
        await asyncio.gather(*self._last, return_exceptions=True)
        self._pool.shutdown(wait=False)
