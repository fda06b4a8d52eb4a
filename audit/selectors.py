"""Reads of the audit and of operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.models import PLATFORM_CHAIN, Chain, Event, Operation
from corekit import ids
from corekit.errors import Forbidden, NotFound
from corekit.web.paging import Order

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from django.db.models import QuerySet

    from corekit.actor import Actor

READ = "audit:read"
NEWEST_EVENT = Order(("-at", "-id"))
# What a list of events does not show, and what would make its rows long.
_LONG = ("args_shape", "context", "details", "risk_findings", "risk_reasons", "risk_seed")


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to list; what is None does not matter. `since` counts, `until` does not."""

    code: str | None = None
    object_type: str | None = None
    object_id: str | None = None
    actor_id: str | None = None
    outcome: str | None = None
    phase: str | None = None
    risk_at_least: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    tenant_id: UUID | None = None


_LOOKUPS = {"risk_at_least": "risk_score__gte", "since": "at__gte", "until": "at__lt"}


def events_for(actor: Actor, query: EventQuery) -> QuerySet[Event]:
    """Return the events that an actor may see and asks for. Raises Forbidden without the scope."""
    _require(actor, READ)
    return _matching(actor, query)


def _matching(actor: Actor, query: EventQuery) -> QuerySet[Event]:
    asked = {_LOOKUPS.get(name, name): value for name in query.__slots__ if (value := getattr(query, name)) is not None}
    return Event.objects.visible_to(actor).filter(**asked)


def events_of_object(actor: Actor, query: EventQuery) -> QuerySet[Event]:
    """Return the events of one object that the actor was shown a moment ago: whoever sees it sees what happened to it.

    The caller has checked the scope that the object needs.
    """
    return _matching(actor, query)


def event_for(actor: Actor, event_id: str) -> Event:
    """Return one event. Raises NotFound."""
    found = events_for(actor, EventQuery()).filter(pk=event_id).first() if ids.is_event_id(event_id) else None
    if found is None:
        raise NotFound("There is no such event.")
    return found


def events_at(actor: Actor, tenant_id: str | None) -> QuerySet[Event]:
    """Return the events of a tenant, or with None all that an actor may see. Raises Forbidden without the scope."""
    _require(actor, READ)
    rows = Event.objects.visible_to(actor).defer(*_LONG)
    return rows if tenant_id is None else rows.filter(tenant_id=tenant_id)


def event_at(rows: QuerySet[Event], event_id: str) -> Event:
    """Return one of these events with everything. Raises NotFound."""
    found = rows.defer(None).filter(pk=event_id).first() if ids.is_event_id(event_id) else None
    if found is None:
        raise NotFound("There is no such event.")
    return found


def events_of_sandbox(rows: QuerySet[Event], sandbox_id: str) -> QuerySet[Event]:
    """Return those of these events that happened in or to a sandbox. Raises NotFound when there is none."""
    found = rows.filter(sandbox_id=sandbox_id)
    if not sandbox_id or not found.exists():
        raise NotFound("There is no such sandbox, or nothing of it is on record.")
    return found


def chain_at(actor: Actor, tenant_id: str | None) -> Chain | None:
    """Return the chain of a tenant's events, or with None the platform's; None before its first event is sealed."""
    _require(actor, READ)
    return Chain.objects.filter(name=tenant_id or PLATFORM_CHAIN).first()


def operations_for(actor: Actor) -> QuerySet[Operation]:
    """Return the operations that an actor may see."""
    _require(actor, "tenant:read")
    return Operation.visible_to(actor)


def operation_for(actor: Actor, operation_id: str) -> Operation:
    """Return one operation. Raises NotFound."""
    found = None
    if ids.is_event_id(operation_id):
        found = operations_for(actor).filter(pk=operation_id).first()
    if found is None:
        raise NotFound("There is no such operation.")
    return found


def _require(actor: Actor, scope: str) -> None:
    # The table of scopes lies above this app.
    if not actor.has(scope):
        raise Forbidden(f"This needs the scope {scope}.", scope=scope)
