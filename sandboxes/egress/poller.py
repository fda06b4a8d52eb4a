"""Tells sockets that something happened to them, at a fraction of what the event loop's own readers cost.

A socket is registered once, edge-triggered, and never again touched until it is closed. The event loop sees one
descriptor, that of this poller. Being told twice, or for nothing, is harmless: whoever is told tries and sees.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
HANGUP = select.EPOLLHUP
_ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_AT_ONCE = 256


class Poller:
    """Belongs to the running event loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[int], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._dispatch)

    def add(self, descriptor: int, told: Callable[[int], None]) -> None:
        """Call `told` with what happened, from now on."""
        self._told[descriptor] = told
        self._epoll.register(descriptor, _ALL)

    def change(self, descriptor: int, told: Callable[[int], None]) -> None:
        """Call somebody else."""
        self._told[descriptor] = told

    def forget(self, descriptor: int) -> None:
        """Call nobody any more; the kernel forgets the socket when it is closed."""
        self._told.pop(descriptor, None)

    def release(self, descriptor: int) -> None:
        """Forget a socket that lives on elsewhere."""
        self.forget(descriptor)
        self._epoll.unregister(descriptor)

    def _dispatch(self) -> None:
        told = self._told
        for descriptor, what in self._epoll.poll(0, _AT_ONCE):
            call = told.get(descriptor)
            if call is not None:
                call(what)

    def close(self) -> None:
        """Stop."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
