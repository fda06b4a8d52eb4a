"""Reads of the audit and of operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Q, Sum

from audit.filters import EventFilters
from audit.models import PLATFORM_CHAIN, AnchorPosition, Chain, Checkpoint, Event, Operation, Seal, Unsealed, Verdict
from corekit import ids
from corekit.errors import Forbidden, InvalidInput, NotFound
from corekit.web.paging import Order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import QuerySet

    from corekit.actor import Actor

READ = "audit:read"
NEWEST_EVENT = Order(("-at", "-id"))
_NOTHING_BEFORE = "0" * 64
# What a list of events does not show, and what would make its rows long.
_LONG = ("args_shape", "context", "details", "risk_findings", "risk_reasons", "risk_seed")


def events_for(actor: Actor, query: Mapping[str, Any]) -> QuerySet[Event]:
    """Return the events that an actor may see and asks for. Raises Forbidden without the scope."""
    _require(actor, READ)
    return filtered(Event.objects.visible_to(actor), query).rows


def events_of_object(actor: Actor, query: Mapping[str, Any]) -> QuerySet[Event]:
    """Return the events of one object that the actor was shown a moment ago: whoever sees it sees what happened to it.

    The caller has checked the scope that the object needs.
    """
    return filtered(Event.objects.visible_to(actor), query).rows


def event_for(actor: Actor, event_id: str) -> Event:
    """Return one event. Raises NotFound."""
    found = events_for(actor, {}).filter(pk=event_id).first() if ids.is_event_id(event_id) else None
    if found is None:
        raise NotFound("There is no such event.")
    return found


def events_at(actor: Actor, tenant_id: str | None) -> QuerySet[Event]:
    """Return the events of a tenant, or with None all that an actor may see. Raises Forbidden without the scope."""
    _require(actor, READ)
    rows = Event.objects.visible_to(actor).defer(*_LONG)
    # Said twice, the tenant would weigh more for SQLite than an index that fits better.
    return rows if tenant_id in {None, actor.tenant_id} else rows.filter(tenant_id=tenant_id)


def event_at(rows: QuerySet[Event], event_id: str) -> Event:
    """Return one of these events with everything. Raises NotFound."""
    found = rows.defer(None).filter(pk=event_id).first() if ids.is_event_id(event_id) else None
    if found is None:
        raise NotFound("There is no such event.")
    return found


def events_of_sandbox(rows: QuerySet[Event], sandbox_id: str) -> QuerySet[Event]:
    """Return those of these events that happened in or to a sandbox. Raises NotFound when there is none."""
    found = rows.filter(sandbox_id=sandbox_id).exclude(sandbox_id="")
    if not found.exists():
        raise NotFound("There is no such sandbox, or nothing of it is on record.")
    return found


def filtered(rows: QuerySet[Event], query: Mapping[str, Any]) -> EventFilters:
    """Return these events with the filters of a query. Raises InvalidInput, naming the first that is wrong."""
    filters = EventFilters(query, queryset=rows)
    for name, errors in filters.form.errors.items():
        raise InvalidInput(f"{filters.form.fields[name].label}: {errors[0]}", field=name)
    return filters


def place(tenant_id: str | None) -> int:
    """Return how far a chain is sealed; with None the newest seal of all chains.

    A tenant counts by its own chain: the other number would tell how busy others are.
    """
    if tenant_id is None:
        return Seal.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    return Seal.objects.filter(chain=tenant_id).order_by("-seq").values_list("seq", flat=True).first() or 0


def sealed_after(tenant_id: str | None, after: int, *, limit: int) -> list[tuple[int, str]]:
    """Return places and ids of the events that were sealed after a place, oldest first."""
    if tenant_id is None:
        return list(Seal.objects.filter(pk__gt=after).order_by("pk").values_list("pk", "event_id")[:limit])
    rows = Seal.objects.filter(chain=tenant_id, seq__gt=after).order_by("seq")
    return list(rows.values_list("seq", "event_id")[:limit])


@dataclass(frozen=True, slots=True)
class Place:
    """Where one event stands in its chain: its seal, the hash before it, and the first checkpoint that covers it."""

    seal: Seal
    before: str
    checkpoint: Checkpoint | None

    @property
    def chain_name(self) -> str:
        """Return whose chain it is."""
        return "the platform's chain" if self.seal.chain == PLATFORM_CHAIN else "this tenant's chain"


def place_of(event: Event) -> Place | None:
    """Return an event's place in its chain; None before it is sealed."""
    seal = Seal.objects.filter(event_id=event.pk).first()
    if seal is None:
        return None
    before = Seal.objects.filter(chain=seal.chain, seq=seal.seq - 1).values_list("hash", flat=True).first()
    later = Checkpoint.objects.defer("leaves").filter(chain=seal.chain, size__gte=seal.seq).order_by("size")
    return Place(seal, before or _NOTHING_BEFORE, later.first())


def verdicts_on(actor: Actor, event: Event) -> QuerySet[Verdict]:
    """Return the verdicts that an event led to."""
    return Verdict.visible_to(actor).filter(event_id=event.pk).order_by("created_at", "pk")


def verdict_at(actor: Actor, tenant_id: str | None, verdict_id: str) -> Verdict:
    """Return one verdict of a tenant, or with None of any that an actor may see. Raises NotFound."""
    rows = Verdict.visible_to(actor) if ids.is_event_id(verdict_id) else Verdict.objects.none()
    found = (rows if tenant_id is None else rows.filter(tenant_id=tenant_id)).filter(pk=verdict_id).first()
    if found is None:
        raise NotFound("There is no such verdict.")
    return found


def chain_at(actor: Actor, tenant_id: str | None) -> Chain | None:
    """Return the chain of a tenant's events, or with None the platform's; None before its first event is sealed."""
    _require(actor, READ)
    return Chain.objects.filter(name=tenant_id or PLATFORM_CHAIN).first()


def checkpoints_at(actor: Actor, tenant_id: str | None) -> QuerySet[Checkpoint]:
    """Return the checkpoints of a tenant's chain, or with None of the platform's. Raises Forbidden."""
    _require(actor, READ)
    rows: QuerySet[Any] = Checkpoint.objects.defer("leaves").filter(chain=tenant_id or PLATFORM_CHAIN)
    return rows if actor.tenant_id in {None, tenant_id} else rows.none()


@dataclass(frozen=True, slots=True)
class LedgerState:
    """How all chains stand together, for operators. `waiting` is counted no further than `MOST_WAITING`."""

    chains: int
    events: int
    good: int
    bad: int
    waiting: int
    anchors: list[AnchorPosition]

    @property
    def word(self) -> str:
        """Return the one word about all of them that a badge shows."""
        if self.bad:
            return f"{self.bad} broken"
        return "ok" if self.chains and self.good == self.chains else ""


MOST_WAITING = 1000


def ledger_state(actor: Actor) -> LedgerState:
    """Return how all chains stand. Raises Forbidden for who sees one tenant only."""
    _require(actor, "platform:write")
    known = Chain.objects.exclude(verified_as="")
    found = Chain.objects.aggregate(
        chains=Count("pk"), events=Sum("size", default=0), good=Count("pk", filter=Q(verified_as="ok"))
    )
    return LedgerState(
        **found,
        bad=known.exclude(verified_as="ok").count(),
        waiting=Unsealed.objects.all()[:MOST_WAITING].count(),
        anchors=list(AnchorPosition.objects.order_by("name")),
    )


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
