"""Bring the node's events into the audit: at least once from the spool, exactly once into the rows."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from django.db import transaction

from audit import producers, recording
from corekit import clock
from sandboxes import endings, nodes, pausing
from sandboxes.models import Node, Sandbox
from sandboxes.states import EndReason
from tenants import quota

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sandboxes.node_client import Json, NodeClient

logger = structlog.get_logger("sandboxes.events")

BATCH = 200
BUDGET_S = 0.8
_CLOCKS_DIFFER = timedelta(milliseconds=500)
_END_OF_TIME_MS = 253_402_300_799_999

# node id → sequence number that this process acknowledged last
_acked: dict[str, int] = {}


def collect(client: NodeClient) -> int:
    """Commit the node's new events, acknowledge them, and return how many were new.

    Stops after 0.8 s: the next run, a second later, goes on. Raises NodeUnavailable when the node is away.
    """
    node = nodes.current_node(client)
    fresh, until = 0, time.monotonic() + BUDGET_S
    while time.monotonic() < until:
        answer = client.events(after=node.events_upto, limit=BATCH)
        if answer["node_id"] != node.pk or answer["last"] < node.events_upto:
            node = _other_spool(client, node, str(answer["node_id"]))
            continue
        fresh += _store(node, answer["events"])
        producers.hear(_producer(node))
        _acknowledge(client, node)
        if len(answer["events"]) < BATCH:
            break
    return fresh


def _other_spool(client: NodeClient, node: Node, node_id: str) -> Node:
    """Return the node to go on with, when another one answers or its spool began anew."""
    if node_id == node.pk:
        # The numbers start again, the events' ids don't: nothing is taken twice.
        with transaction.atomic():
            if Node.objects.filter(pk=node.pk, events_upto=node.events_upto).update(events_upto=0):
                producers.note_restart(_producer(node), after=node.events_upto)
        node.events_upto = 0
        return node
    other = nodes.heard_of(client, node_id)
    nodes.mark_seen(other, other.boot_id)
    return other


def _store(node: Node, events: Sequence[Json]) -> int:
    """Commit a batch: audit rows, ended sandboxes and the position in the spool, all or nothing."""
    if not events:
        return 0
    upto = max(int(event["seq"]) for event in events)
    with transaction.atomic():
        # Two collectors take the same batch one after the other: the second one finds it there.
        stored = Node.objects.select_for_update().get(pk=node.pk).events_upto
        producers.check_numbers(_producer(node), after=stored, numbers=[int(event["seq"]) for event in events])
        owned = Sandbox.everywhere().filter(node=node).in_bulk({str(event.get("sandbox")) for event in events})
        fresh = recording.record_node_events([(event, _tenant_of(event, owned)) for event in events])
        _follow(events, owned)
        Node.objects.filter(pk=node.pk, events_upto__lt=upto).update(events_upto=upto)
    node.events_upto = max(node.events_upto, upto)
    return sum(fresh)


def _producer(node: Node) -> str:
    return f"{producers.NODE}{node.pk}"


def _tenant_of(event: Json, owned: Mapping[str, Sandbox]) -> UUID | None:
    """Return the tenant that our own row names: the node's word for it is not asked.

    What a node says of a sandbox that it does not own is kept for the operators only.
    """
    row = owned.get(str(event.get("sandbox")))
    if row is None and event.get("sandbox"):
        logger.warning("event_of_unknown_sandbox", seq=event["seq"], sandbox_id=event["sandbox"])
    return None if row is None else row.tenant_id


def _follow(events: Sequence[Json], owned: Mapping[str, Sandbox]) -> None:
    """Bring the rows to what the events say, then their quotas: the rows' locks come first everywhere."""
    mine = [(event, row) for event in events if (row := _row_of(event, owned)) is not None]
    ended = [row.pk for event, row in mine if event.get("code") == "sandbox.ended" and _mark_ended(event, row)]
    paused = [row.pk for event, row in mine if event.get("code") == "sandbox.paused" and _mark_paused(event, row)]
    for sandbox_id in sorted({*ended, *paused}):
        if sandbox_id in ended:
            quota.release(sandbox_id)
        else:
            quota.park(sandbox_id)


def _row_of(event: Json, owned: Mapping[str, Sandbox]) -> Sandbox | None:
    row = owned.get(str(event.get("sandbox")))
    return row if row is not None and event.get("generation") == row.generation else None


def _reason(event: Json) -> str:
    details = event.get("details")
    return str(details.get("reason") or "") if isinstance(details, dict) else ""


def _mark_paused(event: Json, row: Sandbox) -> bool:
    """Follow the node where it paused on its own; a pause that we asked for is written by who asked."""
    at = _moment(event.get("at"))
    if at is None or _reason(event) != EndReason.EXPIRED:
        return False
    return pausing.mark_paused_by_node(row, at, ends_by=at + _CLOCKS_DIFFER)


def _mark_ended(event: Json, row: Sandbox) -> bool:
    said = _reason(event)
    reason = endings.final_reason(wanted=row.end_reason, said=said)
    return endings.mark_ended(row.pk, reason=reason, ended_at=_moment(event.get("at")))


def _moment(at: object) -> datetime | None:
    return clock.from_ms(at) if isinstance(at, int) and 0 <= at <= _END_OF_TIME_MS else None


def _acknowledge(client: NodeClient, node: Node) -> None:
    if node.events_upto and _acked.get(node.pk) != node.events_upto:
        client.ack_events(node.events_upto)
        _acked[node.pk] = node.events_upto


def forget_acknowledged() -> None:
    """Acknowledge again at the next run, as a new process does."""
    _acked.clear()
