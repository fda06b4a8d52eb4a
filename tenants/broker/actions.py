"""Every change to scoped tokens: they are issued, revoked, and end with what they belong to. All stand in the ledger.

Whoever ends a sandbox, revokes a key or suspends a tenant calls `end_…` inside the transaction that says so, so that
there is no moment at which one holds without the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings

from audit.recording import record
from corekit import clock, tokens
from corekit.actor import SYSTEM
from corekit.errors import Conflict, NotFound
from tenants.broker import counters, tokentext
from tenants.broker.noting import OBJECT
from tenants.policy import require
from tenants.tokenmodels import ScopedToken, TokenEnd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from corekit.actor import Actor
    from tenants.broker.wishes import Checked, Wish

READ, WRITE = "tokens:read", "tokens:write"
MOST_AT_ONCE = 1000
"""How many tokens may count for one sandbox at a time."""
KEPT = timedelta(days=30)
"""How long a token's row is kept once it has expired; what it was used for stays in the ledger."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a token belongs to: a generation of a sandbox, or a run."""

    tenant_id: UUID
    sandbox_id: str = ""
    generation: int = 0
    run: str = ""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token with its text, which nobody can show again."""

    token: ScopedToken
    text: str


def issue(
    *,
    actor: Actor,
    bound: Bound,
    wish: Wish,
    checked: Checked,
    idempotency_key: str | None = None,
    request_digest: str = "",
) -> Issued:
    """Issue a token, inside the transaction in which the caller saw that what it is bound to lives.

    Raises Forbidden, Conflict when there are too many, and IntegrityError when somebody was first with the key.
    """
    require(actor, WRITE)
    now = clock.now()
    alive = ScopedToken.everywhere().filter(
        tenant_id=bound.tenant_id, sandbox_id=bound.sandbox_id, run=bound.run, ended_at=None, expires_at__gt=now
    )
    if alive.count() >= MOST_AT_ONCE:
        raise Conflict(f"There are {MOST_AT_ONCE} tokens already: revoke some, or let them expire.")
    start = now + timedelta(seconds=wish.starts_in_s)
    token = ScopedToken(
        tenant_id=bound.tenant_id,
        sandbox_id=bound.sandbox_id,
        generation=bound.generation,
        run=bound.run,
        secret_name=checked.secret.name,
        secret_id=checked.secret.pk,
        service=checked.service.name,
        allow=[call.as_json() for call in checked.allow],
        params=checked.params,
        purpose=wish.purpose,
        not_before=start,
        expires_at=start + timedelta(seconds=wish.expires_in_s),
        max_uses=wish.max_uses,
        requests_per_minute=wish.requests_per_minute,
        max_bytes_out=wish.budget.bytes_out,
        max_tokens=wish.budget.tokens,
        max_microusd=wish.budget.microusd,
        tokens_per_use=checked.tokens_per_use,
        microusd_per_use=checked.microusd_per_use,
        microusd_per_mtok=checked.service.microusd_per_mtok,
        created_by=actor.id[:64],
        created_at=now,
        idempotency_key=idempotency_key,
        request_digest=request_digest,
    )
    text = text_of(token) if idempotency_key else tokentext.new_text(token.pk, debug=settings.DEBUG)
    token.hash = tokentext.text_hash(text)
    token.save(force_insert=True)
    _record_issue(actor, token)
    return Issued(token, text)


def text_of(token: ScopedToken) -> str:
    """Return the text of a token that was asked for with an idempotency key: the same one again.

    No other token's text can be had a second time.
    """
    key = tokens.scoped_token_key(settings.GATEHOUSE.seed())
    return tokentext.repeatable_text(key, token.pk, debug=settings.DEBUG)


def _record_issue(actor: Actor, token: ScopedToken) -> None:
    record(
        "token.issued",
        actor=actor,
        object_type=OBJECT,
        object_id=token.pk,
        tenant_id=token.tenant_id,
        sandbox_id=token.sandbox_id,
        generation=token.generation or None,
        details={
            "service": token.service,
            "secret_name": token.secret_name,
            "calls": [
                f"{method} {path}" for call in token.allow for method in call["methods"] for path in call["paths"]
            ],
            "params": token.params,
            "max_uses": token.max_uses,
            "starts_at": clock.to_rfc3339(token.not_before),
            "expires_at": clock.to_rfc3339(token.expires_at),
            "purpose": token.purpose,
        },
    )


def revoke(*, actor: Actor, token: ScopedToken) -> None:
    """Let a token count no more, at once and for good, inside the caller's transaction. Again is harmless.

    Raises Forbidden, and NotFound for another tenant's.
    """
    if actor.tenant_id is not None and actor.tenant_id != token.tenant_id.hex:
        raise NotFound("There is no such token.")
    require(actor, WRITE)
    if not counters.end({"id": token.pk}, TokenEnd.REVOKED, actor.id).count:
        return
    record(
        "token.revoked",
        actor=actor,
        object_type=OBJECT,
        object_id=token.pk,
        tenant_id=token.tenant_id,
        sandbox_id=token.sandbox_id,
        generation=token.generation or None,
        details={"service": token.service, "secret_name": token.secret_name},
    )


def end_of_sandbox(sandbox_id: str, *, reason: TokenEnd = TokenEnd.SANDBOX_ENDED, actor: Actor = SYSTEM) -> int:
    """End all tokens of a sandbox; return how many had a use left."""
    return _end(actor, ("sandbox", sandbox_id), {"sandbox_id": sandbox_id}, reason)


def end_of_key(key_id: str, tenant_id: UUID, *, actor: Actor) -> int:
    """End all tokens that an API key issued; return how many had a use left."""
    return _end(actor, ("api_key", key_id), {"tenant_id": tenant_id, "created_by": key_id}, TokenEnd.KEY_REVOKED)


def end_of_tenant(tenant_id: UUID, *, actor: Actor) -> int:
    """End all tokens of a tenant; return how many had a use left."""
    return _end(actor, ("tenant", tenant_id.hex), {"tenant_id": tenant_id}, TokenEnd.TENANT_SUSPENDED)


def _end(actor: Actor, owner: tuple[str, str], where: Mapping[str, object], reason: TokenEnd) -> int:
    ended = counters.end(where, reason, actor.id)
    if ended.unused:
        object_type, object_id = owner
        record(
            "token.voided",
            actor=actor,
            object_type=object_type,
            object_id=object_id,
            tenant_id=ended.tenant_id,
            reason=reason,
            details={"count": ended.unused},
        )
    return ended.unused


def forget_old() -> int:
    """Delete the rows of tokens that expired long ago; return how many."""
    old = ScopedToken.everywhere().filter(expires_at__lt=clock.now() - KEPT)
    deleted, _ = old.filter(pk__in=list(old.values_list("pk", flat=True)[:1000])).delete()
    return deleted
