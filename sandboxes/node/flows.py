"""Takes egress's events: each is acknowledged once it is on the node's disk, together with all before it.

A sandbox that has no room left for events gets no way out until there is some: what can't be recorded does not happen.
What it still has to say about flows that were let through is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from sandboxes.node.errors import BadRequest, SpoolFull
from sandboxes.node.events import from_egress, sandbox_of

if TYPE_CHECKING:
    from sandboxes.node.egresslink import Session
    from sandboxes.node.events import Subject
    from sandboxes.node.keeper import Keeper

logger = structlog.get_logger()

_FULL = "events_full"
_STOP_TIMEOUT_S = 2.0
# What waits for the disk. Egress sends all that it has, and keeps it until it is acknowledged.
_MOST_BATCHES = 8


class Flows:
    """The events of one node's egress, in order."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._batches: asyncio.Queue[tuple[Session, list[Any]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        # Sandboxes whose way is shut for want of room.
        self._choked: set[str] = set()

    def start(self) -> None:
        """Begin to take events."""
        self._keeper.ways.heard = self._hear
        self._keeper.on_room = self._make_room
        self._task = asyncio.create_task(self._take_all(), name="flow events")

    async def stop(self) -> None:
        """Take what has come, and no more; what is not acknowledged comes again to the next node."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._batches.join(), _STOP_TIMEOUT_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _hear(self, session: Session, events: list[Any]) -> None:
        self._batches.put_nowait((session, events))
        if self._batches.qsize() >= _MOST_BATCHES:
            session.hold()

    def _make_room(self) -> None:
        """Open the ways that were shut for want of room: the control plane has taken events."""
        choked, self._choked = self._choked, set()
        for sandbox_id in choked:
            self._keeper.spawn(self._keeper.ways.reopen(sandbox_id, _FULL))

    async def _take_all(self) -> None:
        while True:
            session, events = await self._batches.get()
            await asyncio.gather(*(self._take(event) for event in events))
            if (last := _last(events)) is not None:
                await session.tell("acked", upto=last)
            self._batches.task_done()
            if self._batches.empty():
                session.go_on()

    async def _take(self, body: Any) -> None:
        keeper = self._keeper
        try:
            sandbox_id, generation = sandbox_of(body)
            subject = keeper.ways.subject(sandbox_id, generation)
            if subject is None:
                logger.warning("flow_event_of_nobody", sandbox_id=sandbox_id)
                return
            event = from_egress(body, subject, keeper.node_id)
        except BadRequest as error:  # it would be no better the next time
            logger.error("flow_event_refused", error=error.message)
            return
        try:
            await keeper.spool.append(event, lazy=True)
        except SpoolFull as refusal:
            await self._choke(event, subject, refusal)

    async def _choke(self, event: dict[str, Any], subject: Subject, refusal: SpoolFull) -> None:
        keeper = self._keeper
        if "sandbox" not in refusal.details:
            # Nobody's fault: egress keeps what comes until it has no room itself, and lets nothing new pass then.
            await keeper.append(event, lazy=True)
            return
        keeper.report_overflow(subject)
        if subject.id not in self._choked:
            self._choked.add(subject.id)
            keeper.spawn(keeper.ways.shut(subject.id, _FULL))
        if event["decision"] == "allow":
            await keeper.append(event, lazy=True)


def _last(events: list[Any]) -> int | None:
    numbers = [event["seq"] for event in events if isinstance(event, dict) and type(event.get("seq")) is int]
    return max(numbers, default=None)
