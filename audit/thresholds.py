"""What people do about risk: set thresholds, mute rules, look at levels and verdicts, override. Each is an event."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from audit.models import ArgumentCopy, RiskLevel, RiskPolicy, RiskSuppression, Verdict, VerdictState, Webhook
from audit.recording import record
from audit.risk.findings import TIERS
from corekit import clock, ids
from corekit.errors import Conflict, Forbidden, InvalidInput, NotFound

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet

    from corekit.actor import Actor

READ, WRITE = "risk:read", "risk:write"
LONGEST_MUTE = timedelta(days=366)
MAX_MUTES = 200
MAX_LEVELS = 100
THRESHOLDS = ("flag_at", "pause_at", "cut_at", "void_at", "refuse_at")
_UNREADABLE_TIERS = ("L2", "L3")


def policy_for(actor: Actor, tenant_id: UUID | None = None) -> RiskPolicy:
    """Return a tenant's thresholds, the usual ones where it set none. Raises Forbidden or InvalidInput."""
    owner = owner_of(actor, READ, tenant_id)
    return RiskPolicy.objects.filter(pk=owner).first() or RiskPolicy(tenant_id=owner)


def set_policy(
    *,
    actor: Actor,
    flag_at: int | None,
    pause_at: int | None,
    refuse_at: int | None,
    unassessable_tier: str,
    cut_at: int | None = None,
    void_at: int | None = None,
    tenant_id: UUID | None = None,
) -> RiskPolicy:
    """Set all thresholds of a tenant: scores from 1 to 100, or None for never. Raises Forbidden or InvalidInput."""
    owner = owner_of(actor, WRITE, tenant_id)
    wanted: dict[str, object] = {
        "flag_at": flag_at,
        "pause_at": pause_at,
        "cut_at": cut_at,
        "void_at": void_at,
        "refuse_at": refuse_at,
    }
    for name, value in wanted.items():
        if value is not None and not (isinstance(value, int) and 1 <= value <= 100):
            raise InvalidInput(f"{name} must be from 1 to 100, or null for never.", field=name)
    if unassessable_tier not in _UNREADABLE_TIERS or unassessable_tier not in TIERS:
        raise InvalidInput("unassessable_tier must be L2 or L3.", field="unassessable_tier")
    wanted["unassessable_tier"] = unassessable_tier
    with transaction.atomic():
        RiskPolicy.objects.get_or_create(pk=owner)
        policy = RiskPolicy.objects.select_for_update().get(pk=owner)
        before = {name: getattr(policy, name) for name in wanted}
        if before == wanted:
            return policy
        for name, value in wanted.items():
            setattr(policy, name, value)
        policy.save()
        _note("risk.policy_changed", actor, owner, "risk_policy", owner.hex, before=before, after=wanted)
    return policy


def suppressions_for(actor: Actor) -> QuerySet[RiskSuppression]:
    """Return the muted rules that an actor may see, also those that are over. Raises Forbidden."""
    _require(actor, READ)
    rows = RiskSuppression.objects.all()
    return rows if actor.tenant_id is None else rows.filter(tenant_id=actor.tenant_id)


def suppress(*, actor: Actor, rule: str, until: datetime, note: str, tenant_id: UUID | None = None) -> RiskSuppression:
    """Let a rule count nothing for a tenant until a date. What it finds stays visible.

    Raises Forbidden, InvalidInput for a date that is past or more than a year away or without a note, and Conflict
    when there are too many.
    """
    owner, now = owner_of(actor, WRITE, tenant_id), clock.now()
    if not now < until <= now + LONGEST_MUTE:
        raise InvalidInput("until must lie in the future, at most a year away.", field="until")
    if not note.strip():
        raise InvalidInput("A note must say why.", field="note")
    with transaction.atomic():
        if RiskSuppression.objects.filter(tenant_id=owner, until__gt=now).count() >= MAX_MUTES:
            raise Conflict(f"A tenant mutes at most {MAX_MUTES} rules.")
        row = RiskSuppression.objects.create(tenant_id=owner, rule=rule, note=note, until=until, created_by=actor.id)
        _note("risk.suppressed", actor, owner, "rule", rule, until=clock.to_rfc3339(until), note=note)
    return row


def unsuppress(*, actor: Actor, suppression_id: int) -> None:
    """Let a muted rule count again. Raises Forbidden or NotFound."""
    _require(actor, WRITE)
    with transaction.atomic():
        row = suppressions_for(actor).filter(pk=suppression_id).select_for_update().first()
        if row is None:
            raise NotFound("There is no such suppression.")
        until = clock.to_rfc3339(row.until)
        _note("risk.unsuppressed", actor, row.tenant_id, "rule", row.rule, until=until, note=row.note)
        row.delete()


def verdicts_for(actor: Actor) -> QuerySet[Verdict]:
    """Return the verdicts that an actor may see. Raises Forbidden."""
    _require(actor, READ)
    return Verdict.visible_to(actor)


def override_verdict(*, actor: Actor, verdict_id: str, note: str) -> Verdict:
    """Say that a verdict does not hold, and why.

    What waits is not done, and a network that was cut is given back; tokens that were voided stay void.
    Raises Forbidden, NotFound, InvalidInput without a note, and Conflict when it was overridden already.
    """
    _require(actor, WRITE)
    if not note.strip():
        raise InvalidInput("A note must say why.", field="note")
    with transaction.atomic():
        verdict = None
        if ids.is_event_id(verdict_id):
            verdict = Verdict.visible_to(actor).filter(pk=verdict_id).select_for_update().first()
        if verdict is None:
            raise NotFound("There is no such verdict.")
        if verdict.state == VerdictState.OVERRIDDEN:
            raise Conflict("The verdict was overridden already.")
        before = str(verdict.state)
        verdict.state, verdict.note = VerdictState.OVERRIDDEN, note[:1000]
        verdict.decided_by, verdict.decided_at = actor.id[:64], clock.now()
        verdict.save(update_fields=["state", "note", "decided_by", "decided_at"])
        _note(
            "risk.overridden",
            actor,
            verdict.tenant_id,
            "verdict",
            verdict.pk,
            sandbox_id=verdict.sandbox_id,
            action=str(verdict.action),
            state=before,
            note=verdict.note,
            event=verdict.event_id,
            sandbox=verdict.sandbox_id,
        )
    return verdict


def levels_for(actor: Actor, kind: str) -> list[RiskLevel]:
    """Return the highest levels of sandboxes or tenants that an actor may see, as they were last raised."""
    _require(actor, READ)
    rows = RiskLevel.objects.filter(kind=kind)
    if actor.tenant_id is not None:
        rows = rows.filter(tenant_id=actor.tenant_id)
    return list(rows.order_by("-score", "subject_id")[:MAX_LEVELS])


def forget(tenant_id: UUID) -> None:
    """Delete what a tenant that is erased set, and what was judged of it; its events say what happened."""
    for model in (RiskPolicy, RiskSuppression, RiskLevel, Verdict, Webhook, ArgumentCopy):
        model.objects.filter(tenant_id=tenant_id).delete()


def _require(actor: Actor, scope: str) -> None:
    if not actor.has(scope):
        raise Forbidden(f"This needs the scope {scope}.", scope=scope)


def owner_of(actor: Actor, scope: str, tenant_id: UUID | None) -> UUID:
    """Return whose settings an actor means: its own tenant's, or the one that an operator names.

    Raises Forbidden without the scope, InvalidInput when an operator names none.
    """
    _require(actor, scope)
    if actor.tenant_id is not None:
        return UUID(actor.tenant_id)
    if tenant_id is None:
        raise InvalidInput("tenant_id is needed: operators have no tenant.", field="tenant_id")
    return tenant_id


def _note(
    code: str,
    actor: Actor,
    tenant_id: UUID,
    object_type: str,
    object_id: str,
    *,
    sandbox_id: str = "",
    **details: object,
) -> None:
    record(
        code,
        actor=actor,
        object_type=object_type,
        object_id=object_id,
        tenant_id=tenant_id,
        sandbox_id=sandbox_id,
        details=details,
    )
