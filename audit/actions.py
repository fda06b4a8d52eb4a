"""What the audit does about itself: say who read it, open the copies of arguments, and say that they were opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction

from audit import argument_copies, selectors
from audit.models import LedgerPolicy
from audit.recording import record
from audit.thresholds import owner_of
from corekit.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from corekit.actor import Actor

BREAK_GLASS = "audit:arguments"
MAX_REASON = 500
LONGEST_DAYS = 90


def note_reading(*, actor: Actor, tenant_id: UUID | None, filters: Sequence[str]) -> None:
    """Write that an operator reads the audit, for the tenant to see when it is about one tenant alone."""
    record(
        "audit.read",
        actor=actor,
        object_type="audit",
        object_id=tenant_id.hex if tenant_id else "all",
        tenant_id=tenant_id,
        details={"filters": list(filters)},
    )


def open_arguments(*, actor: Actor, event_id: str, reason: str) -> dict[str, Any]:
    """Return the arguments of an event, after writing who asked for them and why.

    Raises Forbidden without the break-glass scope, InvalidInput without a reason, NotFound without a copy.
    """
    if not actor.has(BREAK_GLASS):
        raise Forbidden(f"This needs the scope {BREAK_GLASS}.", scope=BREAK_GLASS)
    reason = reason.strip()
    if not reason or len(reason) > MAX_REASON:
        raise InvalidInput(f"Say in up to {MAX_REASON} characters why you need to see them.", field="reason")
    event = selectors.event_for(actor, event_id)
    # Written before anything is shown, and also when there is nothing to show.
    record(
        "audit.arguments_opened",
        actor=actor,
        object_type="event",
        object_id=event.pk,
        tenant_id=event.tenant_id,
        sandbox_id=event.sandbox_id,
        details={"reason": reason},
    )
    return argument_copies.opened(event)


def argument_copies_for(actor: Actor, tenant_id: UUID | None = None) -> LedgerPolicy:
    """Return whether a tenant keeps copies of arguments. Raises Forbidden or InvalidInput."""
    owner = owner_of(actor, selectors.READ, tenant_id)
    return LedgerPolicy.objects.filter(pk=owner).first() or LedgerPolicy(tenant_id=owner)


def set_argument_copies(*, actor: Actor, keep: bool, days: int, tenant_id: UUID | None = None) -> LedgerPolicy:
    """Say whether the gateway keeps encrypted copies of arguments, and for how many days.

    It holds for sandboxes that start from now on; copies that there are stay until their time is over. Raises
    Forbidden, or InvalidInput naming the field.
    """
    owner = owner_of(actor, BREAK_GLASS, tenant_id)
    if not 1 <= days <= LONGEST_DAYS:
        raise InvalidInput(f"Must be from 1 to {LONGEST_DAYS} days.", field="days")
    with transaction.atomic():
        policy, _ = LedgerPolicy.objects.select_for_update().get_or_create(pk=owner)
        before = {"keep": policy.keep_arguments, "days": policy.arguments_days}
        after = {"keep": keep, "days": days}
        if before == after:
            return policy
        policy.keep_arguments, policy.arguments_days = keep, days
        policy.save(update_fields=["keep_arguments", "arguments_days"])
        record(
            "audit.arguments_policy_changed",
            actor=actor,
            object_type="tenant",
            object_id=owner.hex,
            tenant_id=owner,
            details={"before": before, "after": after},
        )
    return policy
