"""The second lock on the way out: the kernel lets the user of egress connect to nothing but what may be reached.

Egress judges each connection itself. Should it ever be talked out of that, these rules still stand between it and the
host, its network and the clouds' metadata. They concern that user's own connections and nobody else's, and by its group
those of one node's egress alone, in a table of their own in the network namespace of egress. Whoever removes or changes
the table finds it again a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from corekit.addresses import NEVER, SPECIAL
from sandboxes.node import linux
from sandboxes.node.nft import Nft

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from corekit.addresses import Address, Network

logger = structlog.get_logger()

# Whoever flushes the filter usually writes it anew in the same breath; it is looked at once that is over.
_CALM_S = 0.1
# The group of linux/netfilter/nfnetlink.h that hears of every change, as netlink(7) wants it.
_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 1 << (7 - 1)


class SecondLock:
    """Keeps the rules of one node's egress. All methods belong to one event loop."""

    def __init__(self, name: str, uid: int, gid: int, resolvers: Iterable[Address], namespace: Path | None) -> None:
        self._name = name
        self._who = f"meta skuid {uid} meta skgid {gid}"
        self._resolvers = tuple(resolvers)
        # A thread that stays in the namespace: a process has only one, but its threads may have others.
        self._thread = ThreadPoolExecutor(1, "second lock", lambda: _enter(namespace))
        self._turn = asyncio.Lock()
        self._granted: frozenset[Network] = frozenset()
        self._seen: str | None = None
        self._news: socket.socket | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_shut(self) -> bool:
        """Whether the rules are in force."""
        return self._seen is not None

    async def start(self) -> None:
        """Put the rules in force and watch over them. A host that can't have them is told so, and goes on without."""
        loop = asyncio.get_running_loop()
        try:
            self._news = await loop.run_in_executor(self._thread, _listen)
            loop.add_reader(self._news, self._hear)
            async with self._turn:
                await self._apply()
        except OSError as error:
            logger.error("second_lock_missing", error=str(error))

    async def grant(self, networks: frozenset[Network]) -> None:
        """Let exactly these ranges be reached besides the public internet, as far as anybody may open them."""
        if networks == self._granted:
            return
        async with self._turn:
            self._granted = networks
            if self.is_shut:
                try:
                    await self._apply()
                except OSError as error:
                    logger.error("second_lock_not_changed", error=str(error))

    async def stop(self, *, remove: bool) -> None:
        """Watch no more; `remove` also takes the rules away, for when there is no egress any more."""
        loop = asyncio.get_running_loop()
        if self._news is not None:
            loop.remove_reader(self._news)
            self._news.close()
        if self._looking is not None:
            self._looking.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if remove and self.is_shut:
            with contextlib.suppress(OSError):
                await self._run(f"delete table inet {self._name}")
        self._thread.shutdown()

    def _hear(self) -> None:
        assert self._news is not None  # noqa: S101 - it is what was heard
        with contextlib.suppress(OSError):  # also when there was more than there is room for
            while self._news.recv(65_536):
                pass
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_CALM_S, self._begin_look)

    def _begin_look(self) -> None:
        self._looking = None
        task = asyncio.create_task(self._look())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        async with self._turn:
            try:
                found = await self._run(f"list table inet {self._name}")
            except OSError:
                found = None
            if found == self._seen:
                return
            try:
                await self._apply()
            except OSError as error:
                logger.error("second_lock_broken", error=str(error))
            else:
                logger.warning("second_lock_restored")

    async def _apply(self) -> None:
        await self._run(self._rules())
        self._seen = await self._run(f"list table inet {self._name}")

    async def _run(self, commands: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._thread, Nft().run, commands)

    def _rules(self) -> str:
        lines = [
            *_each(self._resolvers, "meta l4proto { tcp, udp } th dport 53 accept"),
            *_each(NEVER, _REJECT),
            *_each(self._granted, "accept"),
            *_each(SPECIAL, _REJECT),
        ]
        # In one step: there is no moment without them.
        return (
            f"table inet {self._name} {{ }}\ndelete table inet {self._name}\n"
            f"table inet {self._name} {{\n"
            f"chain egress {{\n{chr(10).join(lines)}\n}}\n"
            "chain output {\ntype filter hook output priority filter; policy accept;\n"
            f"{self._who} jump egress\n}}\n}}\n"
        )


_REJECT = "reject with icmpx admin-prohibited"


def _each(ranges: Iterable[Network | Address], verdict: str) -> Iterator[str]:
    """Yield one rule for each family that has any of the ranges."""
    networks = [ipaddress.ip_network(one) for one in ranges]
    for version, family in ((4, "ip"), (6, "ip6")):
        # No set of the filter may hold two that overlap.
        merged = ipaddress.collapse_addresses([one for one in networks if one.version == version])  # type: ignore[type-var]
        if elements := ", ".join(map(str, merged)):
            yield f"{family} daddr {{ {elements} }} {verdict}"


def _enter(namespace: Path | None) -> None:
    if namespace is not None:
        linux.enter_network_namespace(str(namespace))


def _listen() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    news = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
    news.bind((0, _GROUP_NFTABLES))
    return news
