"""The table of live sandboxes and everything that hangs on a row: grants, pools, open streams."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from audit.risk.circumstances import Denials
from corekit import tokens
from sandboxes.gateway.ingress import OPEN, Ingress
from sandboxes.gateway.upstream import Idle, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandboxes.gateway.settings import Limits

# Port, address of the client, its key if it has one: a tunnel is recorded with whom it was opened for.
TunnelKey = tuple[int, str, str | None]

_REMEMBERED_DROPS = 4096
_GUEST_IDLE_SECONDS = 30.0
_MAX_WAITING = 1024


class SandboxGone(Exception):
    """The sandbox was dropped while it was in use."""


class SandboxPaused(SandboxGone):
    """The sandbox was paused while it was in use."""


class AccessRevoked(Exception):
    """The key that opened a stream lost its right."""


class TooManyStreams(Exception):
    """The sandbox already has as many open requests as it may have."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The right of one API key on one sandbox, until `expires_at` (epoch ms, None: no end)."""

    key_id: str
    expires_at: int | None
    token: str

    def expired(self, now_ms: int) -> bool:
        """Say whether the right has ended."""
        return self.expires_at is not None and self.expires_at <= now_ms


class Stream:
    """One request that is being relayed. `on_cut` ends it; it is called at most once."""

    __slots__ = ("_route", "error", "key_id", "on_cut")

    def __init__(self, route: Route, key_id: str | None) -> None:
        self._route = route
        self.key_id = key_id
        self.on_cut: Callable[[Exception], None] | None = None
        self.error: Exception | None = None

    def cut(self, error: Exception) -> None:
        """End the stream with this reason."""
        if self.error is None:
            self.error = error
            if self.on_cut is not None:
                self.on_cut(error)

    def check(self) -> None:
        """Raise the reason when the stream was cut already."""
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.on_cut = None
        self._route.streams.discard(self)


@dataclass(slots=True, eq=False)
class Route:
    """One live sandbox as the node described it."""

    id: str
    generation: int
    tenant: str
    socket: str
    access_key: bytes
    audit_key: bytes
    grants: dict[str, Grant]
    limits: Limits
    pool: Pool
    ingress: Ingress = OPEN
    auto_resume: bool = False
    network: bool = False
    running: bool = True
    closed: bool = False
    streams: set[Stream] = field(default_factory=set)
    tunnels: dict[TunnelKey, Idle] = field(default_factory=dict)
    open_tunnels: int = 0
    audit_key_id: str = ""
    copies_key: bytes = b""
    tier: str = ""
    denials: Denials = field(default_factory=Denials)
    refusals: int = 0
    refusal_reported: float = -1.0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def open_stream(self, key_id: str | None) -> Stream:
        """Register a request of this sandbox. Raises TooManyStreams.

        Callers without a key may take three quarters of the room, so that they can't shut the owner out.
        """
        room = self.limits.streams_per_sandbox
        if len(self.streams) >= (room if key_id is not None else max(1, room * 3 // 4)):
            raise TooManyStreams
        stream = Stream(self, key_id)
        self.streams.add(stream)
        return stream

    def usable_grant(self, key_id: str) -> Grant | None:
        """Return a key's grant unless it is missing or has expired."""
        grant = self.grants.get(key_id)
        return None if grant is None or grant.expired(now_ms()) else grant

    def cut_unentitled(self) -> None:
        """End every stream whose key has no right any more."""
        for stream in [one for one in self.streams if one.key_id is not None]:
            if stream.key_id is not None and self.usable_grant(stream.key_id) is None:
                stream.cut(AccessRevoked())

    def change(self, grants: dict[str, Grant], ingress: Ingress, *, running: bool, auto_resume: bool) -> None:
        """Take what the node says anew about the same sandbox, and end what has lost its right."""
        self.grants, self.auto_resume = grants, auto_resume
        self.cut_unentitled()
        if ingress != self.ingress:
            self.ingress = ingress
            self._cut_ports()
        if running == self.running:
            return
        self.running = running
        if running:
            self._wake()
        else:
            self._disconnect(SandboxPaused())

    @property
    def asleep(self) -> bool:
        """Whether it is paused, and no call wakes it."""
        return not self.running and not self.auto_resume

    async def until_running(self, seconds: float) -> bool:
        """Wait until a paused sandbox runs, it is gone or the time is over; say whether it runs."""
        if not self.running and not self.closed:
            arrival = asyncio.get_running_loop().create_future()
            self._waiting.append(arrival)
            try:
                await asyncio.wait([arrival], timeout=seconds)
            finally:
                self._waiting.remove(arrival)
        return self.running

    def _wake(self) -> None:
        for arrival in self._waiting:
            if not arrival.done():
                arrival.set_result(None)

    def _cut_ports(self) -> None:
        """End what came in under other rules for ports."""
        for idle in self.tunnels.values():
            idle.clear()
        for stream in [one for one in self.streams if one.key_id is None]:
            stream.cut(AccessRevoked())

    def _disconnect(self, error: Exception) -> None:
        """Close idle connections and end every stream."""
        self.pool.clear()
        for idle in self.tunnels.values():
            idle.clear()
        for stream in list(self.streams):
            stream.cut(error)

    def count_lost_tunnel(self) -> None:
        """Note that a connection to a user port is gone."""
        self.open_tunnels -= 1

    def close(self) -> None:
        """End everything that is open on this sandbox."""
        self.pool.close()
        for tunnel in self.tunnels.values():
            tunnel.close()
        self.running, self.closed = False, True
        self._disconnect(SandboxGone())
        self._wake()

    def prune(self, now: float) -> None:
        """Close what lies idle."""
        self.pool.prune(now)
        for key in [key for key, idle in self.tunnels.items() if not idle.prune(now)]:
            del self.tunnels[key]


def now_ms() -> int:
    """Return the time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def make_grants(access_key: bytes, expiries: dict[str, int | None]) -> dict[str, Grant]:
    """Return the grants of a row; each carries its token, which signed URLs are checked against."""
    return {key: Grant(key, at, tokens.mint(access_key, key)) for key, at in expiries.items()}


class RouteTable:
    """Live sandboxes by id. While the node is away the last table stays."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._routes: dict[str, Route] = {}
        self._dropped: OrderedDict[str, None] = OrderedDict()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._waiting_count = 0
        self.synced = False

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(list(self._routes.values()))

    def get(self, sandbox_id: str) -> Route | None:
        """Return the route of a live sandbox."""
        return self._routes.get(sandbox_id)

    async def find(self, sandbox_id: str) -> Route | None:
        """Return the route; an id that was never seen gets a moment to arrive.

        A caller may use a sandbox the instant its creation is answered, on another connection than the one
        that brings the row.
        """
        route = self._routes.get(sandbox_id)
        if route is not None or sandbox_id in self._dropped or self._waiting_count >= _MAX_WAITING:
            return route
        arrival = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(sandbox_id, []).append(arrival)
        self._waiting_count += 1
        try:
            await asyncio.wait([arrival], timeout=self._limits.route_wait_seconds)
        finally:
            self._waiting_count -= 1
            others = self._waiting[sandbox_id]
            others.remove(arrival)
            if not others:
                del self._waiting[sandbox_id]
        return self._routes.get(sandbox_id)

    def put(
        self,
        *,
        sandbox_id: str,
        generation: int,
        tenant: str,
        socket: str,
        access_key: bytes,
        audit_key: bytes,
        expiries: dict[str, int | None],
        ingress: Ingress = OPEN,
        running: bool = True,
        auto_resume: bool = False,
        audit_key_id: str = "",
        tier: str = "",
        copies_key: bytes = b"",
        network: bool = False,
    ) -> Route:
        """Add or replace a row. Streams survive only under the same generation, socket and keys."""
        old = self._routes.get(sandbox_id)
        same = (
            old is not None
            and (old.generation, old.socket) == (generation, socket)
            and (old.access_key, old.audit_key, old.tenant) == (access_key, audit_key, tenant)
        )
        grants = make_grants(access_key, expiries)
        if old is not None and same:
            old.change(grants, ingress, running=running, auto_resume=auto_resume)
            return old
        route = Route(
            id=sandbox_id,
            generation=generation,
            tenant=tenant,
            socket=socket,
            access_key=access_key,
            audit_key=audit_key,
            grants=grants,
            limits=self._limits,
            pool=Pool(socket, connect_seconds=self._limits.connect_seconds, idle_seconds=_GUEST_IDLE_SECONDS),
            ingress=ingress,
            auto_resume=auto_resume,
            running=running,
            audit_key_id=audit_key_id,
            tier=tier,
            copies_key=copies_key,
            network=network,
        )
        self._routes[sandbox_id] = route
        self._dropped.pop(sandbox_id, None)
        if old is not None:
            old.close()
        for arrival in self._waiting.get(sandbox_id, ()):
            if not arrival.done():
                arrival.set_result(None)
        return route

    def drop(self, sandbox_id: str, generation: int | None = None) -> None:
        """Remove a row and end its streams; a late line about an older generation is ignored."""
        route = self._routes.get(sandbox_id)
        if route is None or (generation is not None and generation < route.generation):
            return
        del self._routes[sandbox_id]
        self._dropped[sandbox_id] = None
        while len(self._dropped) > _REMEMBERED_DROPS:
            self._dropped.popitem(last=False)
        route.close()

    def keep_only(self, sandbox_ids: set[str]) -> None:
        """Finish a snapshot: drop every row that it did not repeat."""
        for sandbox_id in [one for one in self._routes if one not in sandbox_ids]:
            self.drop(sandbox_id)
        self.synced = True

    def tick(self) -> None:
        """End streams of expired grants and close idle connections. To be called twice a second."""
        now = asyncio.get_running_loop().time()
        for route in list(self._routes.values()):
            if route.streams and any(grant.expires_at is not None for grant in route.grants.values()):
                route.cut_unentitled()
            route.prune(now)
