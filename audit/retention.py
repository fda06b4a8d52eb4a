"""How long events are kept: the policy of each tenant, legal hold, and dropping what is older.

Only the bodies of events go. Their hashes stay, so that the chain and every proof still hold, and a signed record says
which numbers were dropped. Nothing goes that no checkpoint outside the database covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection, transaction

from audit import anchors, prunerecords, signing
from audit.models import PLATFORM_CHAIN, AnchorPosition, Chain, Checkpoint, LedgerPolicy, PruneRange, PruneRecord
from audit.recording import record
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from corekit.actor import Actor

BATCH = 5000
"""How many events go in one transaction."""
SHORTEST_DAYS = 30
LONGEST_DAYS = 36_500
_DAYS = ("retention_days", "denied_retention_days")

_OLD = (
    "SELECT s.seq FROM audit_seal s JOIN audit_event e ON e.id = s.event_id"
    " WHERE s.chain = %s AND s.seq <= %s AND e.received_at < %s"
    " AND (e.received_at < %s OR (e.decision <> 'deny' AND e.outcome <> 'refused'))"
    " ORDER BY s.seq LIMIT %s"
)
_DROP = (
    "DELETE FROM audit_event WHERE id IN (SELECT event_id FROM audit_seal WHERE chain = %s AND seq BETWEEN %s AND %s)"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What may go of one chain, or why nothing may."""

    chain: str
    checkpoint: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    rule: str = ""
    refusal: str = ""

    @property
    def events(self) -> int:
        """How many events it names."""
        return sum(last - first + 1 for first, last in self.ranges)


def policy_of(chain: str) -> LedgerPolicy:
    """Return how long the events of a chain are kept. The platform's own have the policy of who has set none."""
    tenant_id = tenant_of(chain)
    found = LedgerPolicy.objects.filter(pk=tenant_id).first() if tenant_id else None
    return found or LedgerPolicy(tenant_id=tenant_id or UUID(int=0))


def tenant_of(chain: str) -> UUID | None:
    """Return whose chain it is; None for the platform's."""
    return None if chain == PLATFORM_CHAIN else UUID(chain)


def set_retention(*, actor: Actor, tenant_id: UUID, **days: int) -> LedgerPolicy:
    """Change for how many days a tenant's events are kept. Raises Forbidden, or InvalidInput naming the field."""
    _require_operator(actor)
    for name, value in days.items():
        if name not in _DAYS or not SHORTEST_DAYS <= value <= LONGEST_DAYS:
            raise InvalidInput(f"Must be from {SHORTEST_DAYS} to {LONGEST_DAYS} days.", field=name)
    with transaction.atomic():
        policy = _locked(tenant_id)
        before = {name: getattr(policy, name) for name in days}
        if before == days:
            return policy
        for name, value in days.items():
            setattr(policy, name, value)
        policy.save()
        _note("audit.policy_changed", actor, tenant_id, before=before, after=days)
    return policy


def set_hold(*, actor: Actor, tenant_id: UUID, note: str) -> LedgerPolicy:
    """Keep everything of a tenant until the hold is lifted. Raises Forbidden, or InvalidInput without a note."""
    _require_operator(actor)
    note = note.strip()
    if not note or len(note) > 500:
        raise InvalidInput("Say in up to 500 characters what the hold is for.", field="note")
    return _hold(actor, tenant_id, held=True, note=note)


def lift_hold(*, actor: Actor, tenant_id: UUID) -> LedgerPolicy:
    """Let a tenant's old events go again. Raises Forbidden."""
    _require_operator(actor)
    return _hold(actor, tenant_id, held=False, note="")


def plan(chain: str, now: datetime | None = None) -> Plan:
    """Return what may go of a chain at this time, the oldest first and a batch at most."""
    policy = policy_of(chain)
    if policy.legal_hold:
        return Plan(chain, refusal=f"legal hold: {policy.hold_note}")
    checkpoint = anchored_size(chain)
    if not checkpoint:
        return Plan(chain, refusal="no checkpoint of it is anchored outside the database")
    moment = now or clock.now()
    old, denied = (moment - timedelta(days=getattr(policy, name)) for name in _DAYS)
    with connection.cursor() as cursor:
        values = [connection.ops.adapt_datetimefield_value(at) for at in (max(old, denied), denied)]
        cursor.execute(_OLD, [chain, checkpoint, values[0], values[1], BATCH])
        numbers = [row[0] for row in cursor.fetchall()]
    rule = f"{policy.retention_days} days, refused acts {policy.denied_retention_days} days"
    return Plan(chain, checkpoint, tuple(_ranges(numbers))[: prunerecords.MAX_RANGES], rule)


def prune(chain: str, *, actor: Actor = SYSTEM, now: datetime | None = None) -> int:
    """Drop what may go of a chain, in batches; return how many events went. Only who holds the signing key can."""
    dropped = 0
    while True:
        with transaction.atomic():
            # Whoever sets a hold waits for this batch, or this batch sees the hold.
            if tenant_id := tenant_of(chain):
                _locked(tenant_id)
            batch = plan(chain, now)
            if not batch.ranges:
                return dropped
            dropped += _drop(batch, actor)


def prune_all(now: datetime | None = None) -> int:
    """Drop what may go of every chain; return how many events went."""
    return sum(prune(chain, now=now) for chain in Chain.objects.order_by("name").values_list("name", flat=True))


def anchored_size(chain: str) -> int:
    """Return up to which number every anchor has a chain's checkpoints; 0 when there is no anchor."""
    names = anchors.names()
    positions = dict(AnchorPosition.objects.filter(name__in=names).values_list("name", "checkpoint_id"))
    if not names:
        return 0
    reached = min(positions.get(name, 0) for name in names)
    last = Checkpoint.objects.filter(chain=chain, pk__lte=reached).order_by("-size").values_list("size", flat=True)
    return last.first() or 0


def _drop(batch: Plan, actor: Actor) -> int:
    at = clock.now()
    said = prunerecords.Record(batch.chain, batch.checkpoint, batch.ranges, batch.rule)
    note, key_id = signing.sign_note(prunerecords.write(said, at))
    row = PruneRecord(chain=batch.chain, note=note, key_id=key_id, events=batch.events, at=at)
    row.save()
    PruneRange.objects.bulk_create(
        PruneRange(record=row, chain=batch.chain, first=first, last=last) for first, last in batch.ranges
    )
    with connection.cursor() as cursor:
        for first, last in batch.ranges:
            cursor.execute(_DROP, [batch.chain, first, last])
    _note(
        "audit.pruned",
        actor,
        tenant_of(batch.chain),
        first=batch.ranges[0][0],
        last=batch.ranges[-1][1],
        events=batch.events,
        rule=batch.rule,
    )
    return batch.events


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of numbers that follow each other."""
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
            continue
        if first:
            yield first, last
        first = last = number
    if first:
        yield first, last


def _hold(actor: Actor, tenant_id: UUID, *, held: bool, note: str) -> LedgerPolicy:
    with transaction.atomic():
        policy = _locked(tenant_id)
        if (policy.legal_hold, policy.hold_note) == (held, note):
            return policy
        policy.legal_hold, policy.hold_note = held, note
        policy.save(update_fields=["legal_hold", "hold_note"])
        if held:
            _note("audit.hold_set", actor, tenant_id, note=note)
        else:
            _note("audit.hold_lifted", actor, tenant_id)
    return policy


def _locked(tenant_id: UUID) -> LedgerPolicy:
    LedgerPolicy.objects.get_or_create(pk=tenant_id)
    return LedgerPolicy.objects.select_for_update().get(pk=tenant_id)


def _note(code: str, actor: Actor, tenant_id: UUID | None, **details: object) -> None:
    record(
        code,
        actor=actor,
        object_type="audit",
        object_id=tenant_id.hex if tenant_id else PLATFORM_CHAIN,
        tenant_id=tenant_id,
        details=details,
    )


def _require_operator(actor: Actor) -> None:
    # Who is watched doesn't decide how long the watching is remembered.
    if actor.tenant_id is not None or not actor.has("platform:write"):
        raise Forbidden("Only the platform's operators decide how long events are kept.", scope="platform:write")
