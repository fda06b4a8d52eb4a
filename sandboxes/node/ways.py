"""The ways out of this node's sandboxes: who has one, where it leads, and that egress knows.

Egress obeys what it was told last, and serves nobody whom it was not told of. Each connection to it begins with all of
them, so that it does not matter which of the two processes was started again. Nothing is open before egress has said
that it obeys.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from sandboxes.node.egresslink import Failed, Lost, Session
from sandboxes.node.errors import EgressUnavailable
from sandboxes.node.events import Past

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from corekit.addresses import Network
    from sandboxes.node.doors import Doors
    from sandboxes.node.egresslink import Message
    from sandboxes.node.events import Subject
    from sandboxes.node.secondlock import SecondLock
    from sandboxes.node.spec import Spec
    from sandboxes.node.trust import Authority, Trust

logger = structlog.get_logger()

# Callers of the internal API wait for ten seconds.
_PATIENCE_S = 6.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5
_AT_ONCE = 64
_NOTHING: frozenset[Network] = frozenset()
# Of sandboxes that have ended, whose last flows are still to be told of.
_REMEMBERED = 4_096


@dataclass
class Way:
    """One sandbox's way out. Nothing passes while there is a reason in `shut`; `told` is who was told, and what.

    `adopted` is one that an earlier node opened: its listener is egress's, if that is still the same.
    """

    spec: Spec
    slot: int
    shut: frozenset[str] = frozenset()
    adopted: bool = False
    listener: socket.socket | None = None
    told: tuple[Session, int, bool] | None = None
    authority: Authority | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def version(self) -> int:
        """Return which version of its document is to be obeyed."""
        return self.spec.network.version or 0

    def network(self) -> dict[str, Any]:
        """Return the document to obey: without layers nothing passes it."""
        document = self.spec.network.document or {}
        return {**document, "layers": []} if self.shut else document


class Ways:
    """Keeps all ways of one node. All methods belong to one event loop."""

    def __init__(self, socket_path: Path, doors: Doors, trust: Trust, lock: SecondLock | None) -> None:
        self._path = socket_path
        self._doors = doors
        self._trust = trust
        # None on a node without egress.
        self._lock = lock
        self._ways: dict[str, Way] = {}
        self._past: OrderedDict[str, Past] = OrderedDict()
        # Few have any.
        self._private: dict[str, frozenset[Network]] = {}
        self._session: Session | None = None
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.heard: Callable[[Session, list[Any]], None] = lambda _session, _events: None

    # --- what the keeper asks for

    async def open(self, spec: Spec, slot: int) -> None:
        """Return once egress serves the sandbox. EgressUnavailable: nothing is open. Nothing happens without a way."""
        if spec.network.mode == "none":
            return
        self._require_served()
        way = self._keep(Way(spec, slot))
        try:
            await self._grant()
            await self._tell(way)
        except BaseException:
            # Egress may have taken it already.
            await self.close(spec.id)
            raise

    def adopt(self, spec: Spec, slot: int, *shut: str) -> None:
        """Keep the way of a sandbox that an earlier node started; egress hears of it when the connection begins."""
        if spec.network.mode != "none":
            self._keep(Way(spec, slot, frozenset(shut), adopted=True))

    async def change(self, spec: Spec) -> int:
        """Return the version that egress obeys once that is the one of `spec`, or a later one."""
        self._require_served()
        way = self._ways[spec.id]
        before, way.spec = self._private.get(spec.id, _NOTHING), spec
        self._keep(way)
        # Until egress obeys the new document, what the old one needs stays open.
        await self._grant(before)
        await self._tell(way)
        await self._grant()
        return way.told[1] if way.told else way.version

    async def shut(self, sandbox_id: str, why: str) -> None:
        """Close all flows of a sandbox and let none begin; where egress is not there, it learns of it first."""
        way = self._ways.get(sandbox_id)
        if way is not None:
            way.shut |= {why}
            if self.is_served:
                await self._tell(way)

    async def reopen(self, sandbox_id: str, why: str) -> None:
        """Take `why` back, and let flows begin again when nothing else is against it. EgressUnavailable as `open`."""
        way = self._ways.get(sandbox_id)
        if way is not None:
            way.shut -= {why}
            await self._tell(way)

    async def close(self, sandbox_id: str) -> None:
        """End a way: its flows are closed when this returns, or egress is not there. Safe to repeat."""
        way = self._forget(sandbox_id)
        if way is not None and (session := self._session) is not None:
            with contextlib.suppress(Failed, Lost):
                await session.ask("drop", id=sandbox_id, generation=way.spec.generation)
            await self._grant()

    def version(self, sandbox_id: str) -> int | None:
        """Return which version of a sandbox's document egress obeys; None while it is not known to obey any."""
        way = self._ways.get(sandbox_id)
        told = way.told if way else None
        return told[1] if told and told[0] is self._session else None

    def subject(self, sandbox_id: str, generation: Any) -> Subject | None:
        """Return whom an event of egress is about; None when nobody is known by that name."""
        way = self._ways.get(sandbox_id)
        subject = self._past.get(sandbox_id) if way is None else way.spec
        return subject if subject is not None and subject.generation == generation else None

    @property
    def is_served(self) -> bool:
        """Whether egress is there and was told everything."""
        return self._synced.is_set()

    @property
    def is_locked(self) -> bool:
        """Whether the kernel, too, keeps egress from what nobody may reach."""
        return self._lock is not None and self._lock.is_shut

    def _keep(self, way: Way) -> Way:
        self._ways[way.spec.id] = way
        self._private.pop(way.spec.id, None)
        if private := way.spec.network.private:
            self._private[way.spec.id] = frozenset(private)
        return way

    def _forget(self, sandbox_id: str) -> Way | None:
        way = self._ways.pop(sandbox_id, None)
        if way is None:
            return None
        self._private.pop(sandbox_id, None)
        spec = way.spec
        self._past[sandbox_id] = Past(spec.id, spec.generation, spec.tenant, spec.tier)
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)
        if way.listener is not None:
            way.listener.close()
        return way

    async def _grant(self, more: frozenset[Network] = _NOTHING) -> None:
        """Open the second lock for what any document may reach, and shut it for all else."""
        if self._lock is not None:
            await self._lock.grant(more.union(*self._private.values()))

    def _require_served(self) -> None:
        if self._lock is None:
            raise EgressUnavailable("This node runs no egress: set GATEHOUSE_NODE_EGRESS=1 and start it again.")

    # --- telling egress

    async def _tell(self, way: Way) -> None:
        """Return once egress obeys the way as it is now. EgressUnavailable when it does not in time."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not await self._is_told(way):
                    pass
        except TimeoutError:
            # What it did not take it is told again, with all else, on the next connection.
            if self._session is not None and self.is_served:
                self._session.close()
            raise EgressUnavailable("Egress does not answer; nothing passes until it does.") from None
        except Failed as error:
            raise EgressUnavailable(f"Egress does not take the policy: {error}.") from None
        except OSError as error:
            raise EgressUnavailable(f"The way out can't be made: {error}.") from error

    async def _is_told(self, way: Way) -> bool:
        await self._synced.wait()
        session = self._session
        try:
            if session is not None:
                await self._put(session, way)
        except Lost:
            return False
        # Else there is another egress, which is told everything first.
        return session is not None and session is self._session

    async def _put(self, session: Session, way: Way) -> None:
        async with way.turn:
            wanted = (session, way.version, bool(way.shut))
            if way.told == wanted or self._ways.get(way.spec.id) is not way:
                return
            if way.told is None and way.listener is None and not way.adopted:
                way.listener = await self._doors.bind(way.slot)
            await self._make_trusted(way)
            # Egress keeps the listener that it has.
            is_known = way.told is not None and way.told[0] is session
            try:
                await self._ask_put(session, way, None if is_known else way.listener)
            except Failed:
                if way.listener is not None:
                    raise
                way.listener = await self._doors.bind(way.slot)
                await self._ask_put(session, way, way.listener)
            way.told = wanted

    async def _ask_put(self, session: Session, way: Way, listener: socket.socket | None) -> None:
        spec = way.spec
        about: dict[str, Any] = {"id": spec.id, "generation": spec.generation, "tenant": spec.tenant}
        if way.authority is not None:
            about["ca"] = {"certificate": way.authority.certificate, "key": way.authority.key}
        await session.ask("put", listener, **about, network=way.network())

    async def _make_trusted(self, way: Way) -> None:
        """Let the sandbox trust egress for the hosts that its document binds, before egress vouches for one of them."""
        hosts = way.spec.network.bound
        if hosts and (way.authority is None or way.authority.hosts != hosts):
            way.authority = await asyncio.to_thread(self._trust.issue, way.slot, way.spec.build, hosts)
        elif not hosts and (way.authority is not None or (way.adopted and way.told is None)):
            await asyncio.to_thread(self._trust.withdraw, way.slot)
            way.authority = None

    # --- the connection

    def start(self) -> None:
        """Begin to keep a connection to egress, once every sandbox that still runs was adopted."""
        if self._lock is not None:
            self._task = asyncio.create_task(self._stay_connected(), name="egress link")

    async def stop(self) -> None:
        """Hang up. Egress goes on as it was told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for way in self._ways.values():
            if way.listener is not None:
                way.listener.close()

    async def _stay_connected(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                session = Session.connect(self._path, self._hear)
            except OSError:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                continue
            self._session = session
            await self._grant()
            try:
                if await self._sync(session):
                    pause = _FIRST_PAUSE_S
                    await session.ended.wait()
            finally:
                self._synced.clear()
                self._session = None
                session.close()
            logger.warning("egress_link_lost")
            await asyncio.sleep(pause)

    async def _sync(self, session: Session) -> bool:
        """Tell egress everything; False when that fails."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def tell(way: Way) -> None:
            async with turns:
                try:
                    await self._put(session, way)
                except (Failed, OSError) as error:  # nothing of it passes; a later document may do
                    logger.error("egress_policy_refused", sandbox_id=way.spec.id, error=str(error))

        try:
            async with asyncio.TaskGroup() as group:
                for way in tuple(self._ways.values()):
                    group.create_task(tell(way))
            await session.ask("synced")
        except (ExceptionGroup, Lost, Failed) as error:
            logger.error("egress_not_synced", error=repr(error))
            return False
        self._synced.set()
        logger.info("egress_synced", sandboxes=len(self._ways))
        return True

    def _hear(self, message: Message) -> None:
        events = message.get("events")
        session = self._session
        if message.get("op") == "events" and isinstance(events, list) and session is not None:
            self.heard(session, events)
