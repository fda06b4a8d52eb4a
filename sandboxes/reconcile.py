"""Make rows and nodes agree. The row says what should be, the node says what is.

Order matters. The live rows are read before the node is asked: a row that says `running` was at the node by
then, so if the node's later answer lacks it, it is gone. And a sandbox at the node that was not among those
rows is looked up afterwards: its row was committed before the node heard of it, so no row means no owner.
Every step is a conditional UPDATE or a call that may be repeated, so any number of these may run at once and
each may die anywhere.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from django.db import transaction

from audit import recording
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import GatehouseError
from sandboxes import endings, nodes, pausing
from sandboxes.errors import UnknownAtNode
from sandboxes.models import Sandbox
from sandboxes.states import LIVE, EndReason, SandboxState
from tenants import quota

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandboxes.models import Node
    from sandboxes.node_client import Json, NodeClient

logger = structlog.get_logger("sandboxes.reconcile")

PATIENCE_S = 30
"""How long a row may be `starting`: longer than a start may take, so that nobody waits for its answer any more."""

FRESH_S = 1.0
"""For how long a look at the node serves other refusals."""


@dataclass(slots=True)
class Outcome:
    """What one pass changed."""

    ended: int = 0
    stopped: int = 0
    adjusted: int = 0


def reconcile(client: NodeClient) -> Outcome:
    """Compare every live row with the node and mend both. Raises NodeUnavailable when it is away."""
    rows = list(Sandbox.everywhere().filter(state__in=LIVE).order_by("pk"))
    answer = client.list()
    node = nodes.heard_of(client, str(answer["node_id"]))
    rebooted = node.boot_id not in {"", answer["boot_id"]}
    guests = {str(guest["id"]): guest for guest in answer["sandboxes"]}
    outcome = Outcome()
    for row in rows:
        guest = _own_guest(row, node, guests)
        if guest is None:
            _settle_missing(row, outcome, rebooted=rebooted)
        else:
            _settle_present(client, row, guest, outcome)
            del guests[row.pk]
    _stop_strays(client, node, list(guests.values()), outcome)
    nodes.mark_seen(node, str(answer["boot_id"]))
    return outcome


def settle(client: NodeClient, sandbox: Sandbox) -> None:
    """Bring one row up to date after the node said that the sandbox is not as its row says."""
    try:
        guest = client.get(sandbox.pk)
    except UnknownAtNode:
        # Somebody else may be ending it: then theirs is the reason.
        _settle_missing(Sandbox.everywhere().get(pk=sandbox.pk), Outcome(), rebooted=False)
    else:
        if guest["state"] == "ended":
            _end_as_reported(sandbox, guest)
        elif guest["state"] == "paused" and sandbox.state == SandboxState.RUNNING:
            _follow_pause(sandbox, guest)


def _own_guest(row: Sandbox, node: Node, guests: Mapping[str, Json]) -> Json | None:
    guest = guests.get(row.pk)
    if guest is None or row.node_id != node.pk or guest["generation"] != row.generation:
        return None
    return guest


def _settle_missing(row: Sandbox, outcome: Outcome, *, rebooted: bool) -> None:
    if row.state == SandboxState.STARTING:
        if not _is_overdue(row):
            return
        reason = EndReason.START_FAILED
    elif row.state == SandboxState.ENDING:
        reason = EndReason(row.end_reason)
    else:
        reason = EndReason.HOST_REBOOTED if rebooted else EndReason.LOST
    outcome.ended += _end_by_system(row, reason)


def _settle_present(client: NodeClient, row: Sandbox, guest: Json, outcome: Outcome) -> None:
    if guest["state"] == "ended":
        outcome.ended += _end_as_reported(row, guest)
    elif row.state == SandboxState.ENDING:
        outcome.ended += _finish(client, row, EndReason(row.end_reason))
    elif row.state == SandboxState.STARTING:
        # Nobody got its id: the caller that asked for it is gone, so it is of no use.
        if _is_overdue(row) and _mark_ending(row):
            outcome.ended += _finish(client, row, EndReason.START_FAILED)
    elif row.state in {SandboxState.PAUSING, SandboxState.RESUMING}:
        outcome.adjusted += _carry_out(client, row)
    elif guest["state"] == "paused" and row.state == SandboxState.RUNNING:
        outcome.adjusted += _follow_pause(row, guest)
    elif guest["state"] == "running" and row.state == SandboxState.PAUSED:
        # Nobody may let it go on without its quota, so it is the node that is wrong.
        outcome.adjusted += pausing.pause_again(row) and _carry_out(client, row)
    else:
        outcome.adjusted += _follow_deadline(row, guest)


def _is_overdue(row: Sandbox) -> bool:
    return clock.now() - row.created_at > timedelta(seconds=PATIENCE_S)


def _mark_ending(row: Sandbox) -> bool:
    with transaction.atomic():
        return endings.mark_ending(row.pk, reason=EndReason.START_FAILED)


def _finish(client: NodeClient, row: Sandbox, reason: EndReason) -> int:
    try:
        endings.finish_ending(client, row, reason=reason)
    except GatehouseError as error:
        logger.warning("stop_failed", sandbox_id=row.pk, error=error.code)
        return 0
    return 1


def _carry_out(client: NodeClient, row: Sandbox) -> int:
    """Do what a half-way row says: its web process died, or still waits for the node, which takes the call twice."""
    try:
        if row.state == SandboxState.PAUSING:
            pausing.finish_pause(client, row)
        else:
            pausing.finish_resume(client, row, ttl_ms=pausing.time_left_ms(row))
    except GatehouseError as error:
        logger.warning("not_carried_out", sandbox_id=row.pk, state=str(row.state), error=error.code)
        return 0
    return 1


def _follow_pause(row: Sandbox, guest: Json) -> int:
    """Write that the node paused a sandbox whose time was over, unless it was resumed since the row was read."""
    if row.end_at is None:
        return 0
    with transaction.atomic():
        moved = pausing.mark_paused_by_node(row, clock.from_ms(guest["paused_at"]), ends_by=row.end_at)
        return int(moved and quota.park(row.pk))


def _follow_deadline(row: Sandbox, guest: Json) -> int:
    if guest["state"] != "running" or row.state != SandboxState.RUNNING:
        return 0
    end_at = clock.from_ms(guest["end_at"])
    if row.end_at == end_at:
        return 0
    # Only if nobody moved it since the row was read: then theirs is the newer one.
    return Sandbox.everywhere().filter(pk=row.pk, state=SandboxState.RUNNING, end_at=row.end_at).update(end_at=end_at)


def _end_as_reported(row: Sandbox, guest: Json) -> int:
    ended_at = guest.get("ended_at")
    reason = endings.final_reason(wanted=row.end_reason, said=str(guest.get("reason") or ""))
    with transaction.atomic():
        return endings.end_row(row.pk, reason=reason, ended_at=clock.from_ms(ended_at) if ended_at else None)


def _end_by_system(row: Sandbox, reason: EndReason) -> int:
    with transaction.atomic():
        if not endings.end_row(row.pk, reason=reason):
            return 0
        recording.record(
            "sandbox.lost",
            actor=SYSTEM,
            object_type="sandbox",
            object_id=row.pk,
            tenant_id=row.tenant_id,
            details={"reason": reason.value, "node": row.node_id},
        )
    logger.warning("sandbox_missing", sandbox_id=row.pk, reason=reason.value)
    return 1


def _stop_strays(client: NodeClient, node: Node, guests: Sequence[Json], outcome: Outcome) -> None:
    running = [guest for guest in guests if guest["state"] != "ended"]
    rows = Sandbox.everywhere().filter(state__in=LIVE).in_bulk([str(guest["id"]) for guest in running])
    for guest in running:
        row = rows.get(str(guest["id"]))
        if row is not None and row.node_id == node.pk and row.generation == guest["generation"]:
            continue
        logger.warning("stray_sandbox", sandbox_id=guest["id"], generation=guest["generation"])
        with contextlib.suppress(GatehouseError):
            client.stop(str(guest["id"]), int(guest["generation"]))
            outcome.stopped += 1


class Refresher:
    """Looks at the node at most once a second, however many callers ask at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._freed = 0

    def refresh(self, client: NodeClient) -> int:
        """End the rows that the node says ended; returns how many did in the latest look."""
        with self._lock:
            if time.monotonic() - self._at > FRESH_S:
                self._freed = _end_reported(client)
                self._at = time.monotonic()
            return self._freed


def _end_reported(client: NodeClient) -> int:
    try:
        guests = {str(guest["id"]): guest for guest in client.list()["sandboxes"] if guest["state"] == "ended"}
    except GatehouseError:
        return 0
    rows = Sandbox.everywhere().filter(state__in=LIVE).filter(pk__in=list(guests))
    return sum(_end_as_reported(row, guests[row.pk]) for row in rows if row.generation == guests[row.pk]["generation"])


refresher = Refresher()
