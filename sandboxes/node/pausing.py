"""Pauses sandboxes and lets them go on: one change at a time for each, the wish on disk before the kernel is asked.

A node that dies at any point leaves a sandbox whose wish is known; the next one asks the kernel for the same again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from corekit.clock import epoch_ms
from sandboxes.node.errors import EgressUnavailable, Ending, NodeError, NotFrozen
from sandboxes.node.events import fact

if TYPE_CHECKING:
    from sandboxes.node.keeper import Keeper
    from sandboxes.node.sandbox import Sandbox
    from sandboxes.node.spool import Event

logger = structlog.get_logger()

# Why a way out is shut.
PAUSED = "paused"
# After a pause that failed, until its deadline, which may have passed, is acted on again.
_REST_S = 1.0


class Pausing:
    """The keeper's hand on what stands still and what runs."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def pause(self, sandbox: Sandbox) -> None:
        """Return when nothing of the sandbox runs. Raises Ending, or NotFrozen: then it runs on."""
        async with sandbox.changing:
            _require_alive(sandbox)
            if sandbox.paused_at is None:
                await self._pause(sandbox, "requested")

    async def expire(self, sandbox: Sandbox) -> None:
        """Pause a sandbox whose deadline has come, unless that was put off meanwhile."""
        async with sandbox.changing:
            if sandbox.ending is not None or sandbox.paused_at is not None:
                return
            if sandbox.end_at > epoch_ms():  # also when the host's clock was put back, or the loop's runs ahead of it
                self._keeper.start_deadline(sandbox)
                return
            try:
                await self._pause(sandbox, "expired")
            except (NodeError, OSError) as error:  # it is tried again
                logger.warning("pause_failed", sandbox_id=sandbox.spec.id, error=str(error))

    async def resume(self, sandbox: Sandbox, ttl_ms: int) -> None:
        """Return when the sandbox runs, for at least `ttl_ms` from now. Raises Ending, NotFrozen or
        EgressUnavailable.
        """
        async with sandbox.changing:
            _require_alive(sandbox)
            end_at = epoch_ms() + ttl_ms
            if sandbox.paused_at is not None:
                await self._resume(sandbox, end_at)
            elif end_at > sandbox.end_at:
                self._keeper.move_deadline(sandbox, end_at)

    async def settle(self, sandbox: Sandbox) -> None:
        """After a restart: bring an adopted sandbox to what was last wished for it."""
        try:
            if sandbox.paused_at is None:
                await sandbox.runtime.resume(sandbox.state)
            else:
                await sandbox.runtime.pause(sandbox.state)
        except NotFrozen as error:
            logger.warning("not_settled", sandbox_id=sandbox.spec.id, error=str(error))
            self._give_pause_up(sandbox)

    def report(self, sandbox: Sandbox, spooled: set[str]) -> None:
        """Send what is not in the spool, which holds the events with these ids.

        One that was acknowledged before the sandbox's state was written goes there again, under the same id.
        """
        for event in tuple(sandbox.unreported):
            if event["id"] in spooled:
                self._note_reported(sandbox, event)
            else:
                self._keeper.spawn(self._report(sandbox, event))

    async def _pause(self, sandbox: Sandbox, reason: str) -> None:
        event = fact("sandbox.paused", sandbox.spec, self._keeper.node_id, reason=reason)
        self._keeper.stop_deadline(sandbox)
        try:
            sandbox.paused_at = event["at"]
            sandbox.unreported.append(event)
            self._keeper.save(sandbox)
            await sandbox.runtime.pause(sandbox.state)
            _require_alive(sandbox)
        except BaseException:
            self._run_on(sandbox, event)
            _require_alive(sandbox)
            raise
        self._keeper.look_away(sandbox)
        self._keeper.show(sandbox)
        self._keeper.spawn(self._report(sandbox, event))
        with contextlib.suppress(
            EgressUnavailable
        ):  # nothing passes that could be closed; it learns of the pause later
            await self._keeper.ways.shut(sandbox.spec.id, PAUSED)

    def _run_on(self, sandbox: Sandbox, event: Event) -> None:
        """Take the wish for a pause back."""
        sandbox.paused_at = None
        sandbox.unreported.remove(event)
        if sandbox.ending is None:
            with contextlib.suppress(OSError):  # then the next node tries the pause again
                self._keeper.save(sandbox)
            self._keeper.start_deadline(sandbox, least_s=_REST_S)

    async def _resume(self, sandbox: Sandbox, end_at: int) -> None:
        event = fact("sandbox.resumed", sandbox.spec, self._keeper.node_id)
        before = sandbox.paused_at, sandbox.end_at
        try:
            sandbox.paused_at, sandbox.end_at = None, end_at
            sandbox.unreported.append(event)
            self._keeper.save(sandbox)
            await self._keeper.ways.reopen(sandbox.spec.id, PAUSED)
            await sandbox.runtime.resume(sandbox.state)
            _require_alive(sandbox)
        except BaseException:
            self._keeper.spawn(self._keeper.ways.shut(sandbox.spec.id, PAUSED))
            sandbox.paused_at, sandbox.end_at = before
            sandbox.unreported.remove(event)
            _require_alive(sandbox)
            with contextlib.suppress(OSError):  # then the next node lets it go on
                self._keeper.save(sandbox)
            raise
        self._keeper.start_deadline(sandbox)
        self._keeper.look_after(sandbox)
        self._keeper.show(sandbox)
        self._keeper.spawn(self._report(sandbox, event))

    async def _report(self, sandbox: Sandbox, event: Event) -> None:
        await self._keeper.append(event, lazy=True)
        self._note_reported(sandbox, event)

    def _note_reported(self, sandbox: Sandbox, event: Event) -> None:
        sandbox.unreported.remove(event)
        if sandbox.ending is None:
            with contextlib.suppress(OSError):  # then the next node reports it once more
                self._keeper.save(sandbox)

    def _give_pause_up(self, sandbox: Sandbox) -> None:
        if sandbox.paused_at is None:  # its group is gone, and its end is seen elsewhere
            return
        known = [event for event in sandbox.unreported if not _is_pause_at(event, sandbox.paused_at)]
        if len(known) == len(sandbox.unreported):
            known.append(fact("sandbox.resumed", sandbox.spec, self._keeper.node_id))
        sandbox.paused_at, sandbox.unreported = None, known
        with contextlib.suppress(OSError):  # then the next node tries the pause again
            self._keeper.save(sandbox)


def _is_pause_at(event: Event, paused_at: int) -> bool:
    return (event["code"], event["at"]) == ("sandbox.paused", paused_at)


def _require_alive(sandbox: Sandbox) -> None:
    if sandbox.ending is not None:
        raise Ending(f"Sandbox {sandbox.spec.id} is ending.", id=sandbox.spec.id)
