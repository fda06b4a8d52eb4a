"""What the broker does to the ledger: each redemption and each refusal is an event, with the reason and its risk."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from audit.models import Event, Outcome
from audit.recording import record
from audit.risk import tokens as risk
from corekit import clock
from corekit.actor import Actor
from tenants import turns
from tenants.broker.asking import Exhausted, Reason, refusal
from tenants.broker.flooding import Refusals
from tenants.models import Reservation

if TYPE_CHECKING:
    from uuid import UUID

    from tenants.broker.asking import Asked, Caller, Refused
    from tenants.tokenmodels import ScopedToken

OBJECT = "scoped_token"
REFUSED, REUSED = "token.refused", "token.reused"
_refusals = Refusals()


def refuse(
    reason: Reason,
    caller: Caller,
    asked: Asked,
    token: ScopedToken | None = None,
    *,
    retry_after: int | None = None,
) -> Refused:
    """Record that a token was refused and why; return what the caller hears, which does not say it."""
    unwritten = _refusals.one_more(caller.name)
    if unwritten is None:
        return Exhausted(reason, retry_after=_refusals.wait_s(caller.name))
    with turns.write():
        _note(reason, caller, asked, token, unwritten)
    return refusal(reason, retry_after=retry_after)


def note_refusal(reason: Reason, caller: Caller, asked: Asked, token: ScopedToken) -> None:
    """Record a refusal inside the caller's transaction, unless there were too many."""
    unwritten = _refusals.one_more(caller.name)
    if unwritten is not None:
        _note(reason, caller, asked, token, unwritten)


def forget_refusals() -> None:
    """Write down the next refusals of each caller one by one, as a new process does."""
    _refusals.clear()


def _note(reason: Reason, caller: Caller, asked: Asked, token: ScopedToken | None, unwritten: int) -> None:
    """Record a refusal; `unwritten` is how many before it were not.

    Where a token of one tenant is used by a sandbox of another, each hears of its own half.
    """
    owner = token.tenant_id if token is not None else None
    tenant_id = _tenant_of(caller) or owner
    own = token if token is not None and tenant_id == owner else None
    again = reason == Reason.USED_UP and own is not None and own.max_uses == 1
    details: dict[str, object] = {"service": asked.service, "method": asked.method, "path": asked.path}
    shown = details | ({"unwritten": unwritten} if unwritten else {})
    recent = 0 if str(reason) in risk.INNOCENT else _refusals_of(caller) + 1
    record(
        REUSED if again else REFUSED,
        actor=broker(own, caller),
        object_type=OBJECT if own is not None else "sandbox",
        object_id=own.pk if own is not None else caller.name,
        tenant_id=tenant_id,
        sandbox_id=caller.sandbox_id,
        generation=caller.generation or None,
        outcome=Outcome.REFUSED,
        reason=reason,
        details=shown | ({"issued_for": own.sandbox_id} if own is not None else {}),
        assessment=risk.assess(risk.REUSED if again else reason, recent),
    )
    if token is not None and own is None:
        record(
            REFUSED,
            actor=broker(token, None),
            object_type=OBJECT,
            object_id=token.pk,
            tenant_id=owner,
            outcome=Outcome.REFUSED,
            reason=reason,
            details=details | {"issued_for": token.sandbox_id},
            assessment=risk.assess(reason),
        )


def broker(token: ScopedToken | None, caller: Caller | None) -> Actor:
    """Return the broker as the one who acts, for a sandbox and with a token."""
    return Actor(
        kind="system",
        id="broker",
        name="Secret broker",
        tenant_id=None,
        scopes=frozenset(),
        auth=OBJECT,
        token_id=token.pk if token is not None else "",
        on_behalf_of=caller.name if caller is not None else "",
    )


def _tenant_of(caller: Caller) -> UUID | None:
    """Return whose the sandbox is that asks: every live one has a reservation."""
    if not caller.sandbox_id:
        return None
    rows = Reservation.everywhere().filter(sandbox_id=caller.sandbox_id)
    found: UUID | None = rows.values_list("tenant_id", flat=True).first()
    return found


def _refusals_of(caller: Caller) -> int:
    if not caller.sandbox_id:
        return 0
    since = clock.now() - timedelta(seconds=risk.WINDOW_S)
    rows = Event.objects.filter(sandbox_id=caller.sandbox_id, code__in=(REFUSED, REUSED), at__gte=since)
    return rows.exclude(reason__in=risk.INNOCENT)[: risk.MOST].count()
