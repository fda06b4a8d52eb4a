"""Redeem scoped tokens: from the text that a sandbox shows to the secret that its request travels on with.

`redeem` before a request goes out, then exactly one of `settle`, when it is over, and `refund`, when nothing of it
went out. All are synchronous and short, hold no connection afterwards, and may be called from any thread; none may be
called inside a transaction.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from audit.models import Outcome as EventOutcome
from audit.recording import record
from audit.risk import tokens as risk
from corekit import clock
from corekit.errors import GatehouseError
from tenants import turns, vaults
from tenants.broker import bodyrules, calls, catalogue, counters, noting, tokentext
from tenants.broker.asking import Asked, Caller, Reason, Refused, refusal
from tenants.broker.counters import Amounts
from tenants.models import ApiKey
from tenants.states import TenantState
from tenants.tokenmodels import ScopedToken, TokenEnd, TokenUse
from tenants.vaults.contract import SecretDisabled, SecretMissing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from tenants.broker.catalogue import Service
    from tenants.vaults.secretvalue import SecretValue

__all__ = ["Asked", "Caller", "Grant", "Outcome", "Reason", "Refused", "check_body", "redeem", "refund", "settle"]

LONGEST_CALL_S = 3600
"""How long a call may take at most: one that is under way for longer is taken for one whose process died."""
MOST_UNMEASURED = 1024 * 1024
"""How many bytes a body of unknown length may have where a budget counts them."""
_NOBODY = "0" * 64
_ENDS = {
    TokenEnd.REVOKED: Reason.REVOKED,
    TokenEnd.SANDBOX_ENDED: Reason.SANDBOX_ENDED,
    TokenEnd.RESTARTED: Reason.OTHER_GENERATION,
    TokenEnd.RISK: Reason.VOIDED,
    TokenEnd.KEY_REVOKED: Reason.KEY_REVOKED,
    TokenEnd.TENANT_SUSPENDED: Reason.TENANT_SUSPENDED,
}


@dataclass(frozen=True, slots=True)
class Grant:
    """One use of a token: where the request goes, with what, and what its body is held to.

    The body has `max_body` bytes at most, counted as they go out. With `params` it is read whole, up to
    `bodyrules.MAX_BODY`, and given to `check_body` before any of it goes out.
    """

    id: str
    token_id: str
    tenant_id: UUID
    service: Service
    secret: SecretValue
    caller: Caller
    asked: Asked
    params: Mapping[str, Any]
    max_body: int
    reserved: Amounts
    token: ScopedToken = field(repr=False)
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `status` None is one that got no answer; `error` says in a word what went wrong.

    `usage_tokens` is what the service said that it counted, `usd` what it said that it cost; None where it did not.
    `reflected` says that its answer held the secret.
    """

    status: int | None
    bytes_in: int = 0
    bytes_out: int = 0
    usage_tokens: int | None = None
    usd: float | None = None
    reflected: bool = False
    error: str = ""


def redeem(text: str, caller: Caller, asked: Asked) -> Grant:
    """Use a token once for a request. Raises Refused, whatever the reason, and writes the reason into the ledger."""
    parsed = tokentext.parse(text)
    if parsed is None:
        raise noting.refuse(Reason.MALFORMED, caller, asked)
    known = counters.find(parsed.id)
    # As long for an id that nobody has as for one whose secret half is another.
    if not hmac.compare_digest(_NOBODY if known is None else known[0].hash, parsed.hash) or known is None:
        raise noting.refuse(Reason.UNKNOWN, caller, asked)
    token, tenant_state = known
    now = clock.now()
    found = _look(token, tenant_state, caller, asked, now)
    service = catalogue.find(token.tenant_id, token.service)
    if found.reason is None and service is None:
        found = calls.Match(Reason.SERVICE)
    if found.reason is not None or service is None:
        raise _refuse(found.reason or Reason.SERVICE, caller, asked, token, now)
    use = _take(token, asked, found.max_body, now)
    if use is None:
        token, tenant_state = counters.find(parsed.id) or known
        reason = _look(token, tenant_state, caller, asked, now).reason or _why_it_was_too_late(token)
        raise _refuse(reason, caller, asked, token, now)
    return _grant(token, service, use, caller, asked)


def _refuse(reason: Reason, caller: Caller, asked: Asked, token: ScopedToken, now: datetime) -> Refused:
    wait_s = _wait_s(token, now) if reason == Reason.RATE else None
    return noting.refuse(reason, caller, asked, token, retry_after=wait_s)


def _look(token: ScopedToken, tenant_state: str, caller: Caller, asked: Asked, now: datetime) -> calls.Match:
    """Say why a token does not do, as far as its row tells. Only `counters.take` says that it does."""
    reason = _why_not_here(token, caller) or _why_not_now(token, tenant_state, now)
    if reason is not None:
        return calls.Match(reason)
    if token.max_uses is not None and token.uses >= token.max_uses:
        return calls.Match(Reason.USED_UP)
    if asked.service != token.service:
        return calls.Match(Reason.SERVICE)
    found = calls.match(token.allow, asked)
    if found.reason is not None:
        return found
    if token.params and not calls.is_json(asked):
        return calls.Match(Reason.CONTENT_TYPE)
    return calls.Match(_why_not_enough(token, asked, now), found.max_body)


def _why_not_here(token: ScopedToken, caller: Caller) -> Reason | None:
    if (token.sandbox_id, token.run) != (caller.sandbox_id, caller.run):
        return Reason.OTHER_SANDBOX
    return None if token.generation == caller.generation else Reason.OTHER_GENERATION


def _why_not_now(token: ScopedToken, tenant_state: str, now: datetime) -> Reason | None:
    if token.ended_at is not None:
        return _ENDS[TokenEnd(token.end_reason)]
    if tenant_state != TenantState.ACTIVE:
        return Reason.TENANT_SUSPENDED
    if now < token.not_before:
        return Reason.NOT_YET
    return Reason.EXPIRED if now >= token.expires_at else None


def _why_not_enough(token: ScopedToken, asked: Asked, now: datetime) -> Reason | None:
    needed = dict(zip(counters.AMOUNTS, _amounts(token, asked, 1)[0].values(), strict=True))
    for name in counters.AMOUNTS:
        most = getattr(token, f"max_{name}")
        used = getattr(token, f"spent_{name}") + getattr(token, f"reserved_{name}")
        if most is not None and used + needed[name] > most:
            return Reason.BUDGET
    return Reason.RATE if _wait_s(token, now) is not None else None


def _why_it_was_too_late(token: ScopedToken) -> Reason:
    """Say why a token could not be taken although its row looks good: its issuer's, or somebody else's last use."""
    revoked = ApiKey.everywhere().filter(pk=token.created_by, revoked_at__isnull=False).exists()
    return Reason.KEY_REVOKED if revoked else Reason.USED_UP


def _wait_s(token: ScopedToken, now: datetime) -> int | None:
    """Return after how many seconds the rate of a token allows its next use, None when it does."""
    if token.requests_per_minute is None:
        return None
    step = counters.MINUTE_US // token.requests_per_minute
    over = token.next_use_us - (clock.to_ms(now) * 1000 + counters.MINUTE_US - step)
    return None if over <= 0 else -(-over // 1_000_000)


def _amounts(token: ScopedToken, asked: Asked, max_body: int) -> tuple[Amounts, Amounts]:
    """Return what must be left of a budget, and what is reserved of it until the use is over."""
    known = asked.body_length
    unmeasured = min(max_body, MOST_UNMEASURED) if token.max_bytes_out is not None else 0
    reserved = Amounts(unmeasured if known is None else known, token.tokens_per_use, token.microusd_per_use)
    return Amounts(min(1, unmeasured) if known is None else known, 1, 1), reserved


@dataclass(frozen=True, slots=True)
class _Use:
    id: str
    reserved: Amounts
    max_body: int


def _take(token: ScopedToken, asked: Asked, max_body: int, now: datetime) -> _Use | None:
    needed, reserved = _amounts(token, asked, max_body)
    # A power cut ends the sandbox as well, and with it the token.
    with turns.write(lasting=False):
        if not counters.take(token, needed=needed, reserved=reserved, now=now):
            return None
        use_id = counters.begin_use(token, method=asked.method, path=asked.path[:300], reserved=reserved, now=now)
    measured = asked.body_length is not None or token.max_bytes_out is None
    return _Use(use_id, reserved, max_body if measured else reserved.bytes_out)


def _grant(token: ScopedToken, service: Service, use: _Use, caller: Caller, asked: Asked) -> Grant:
    try:
        revealed = vaults.reveal(token.tenant_id.hex, token.secret_name)
        if revealed.secret_id != token.secret_id:
            raise SecretMissing
    except GatehouseError as error:
        gone = isinstance(error, (SecretMissing, SecretDisabled))
        reason = Reason.SECRET_MISSING if gone else Reason.VAULT_UNAVAILABLE
        raise _undo(use.id, reason, caller, asked, token, retry_after=error.retry_after) from None
    return Grant(
        id=use.id,
        token_id=token.pk,
        tenant_id=token.tenant_id,
        service=service,
        secret=revealed.value,
        caller=caller,
        asked=asked,
        params=token.params,
        max_body=use.max_body,
        reserved=use.reserved,
        token=token,
    )


def check_body(grant: Grant, body: bytes) -> None:
    """Hold a whole body to the token's rules, before any of it goes out. Raises Refused and undoes the use."""
    try:
        bodyrules.check(grant.params, body)
    except bodyrules.BrokenRule:
        raise refund(grant, Reason.BODY_RULE) from None


def refund(grant: Grant, reason: Reason = Reason.UPSTREAM_UNAVAILABLE) -> Refused:
    """Undo a use of which not one byte went out, record why, and return what the caller is to hear."""
    return _undo(grant.id, reason, grant.caller, grant.asked, grant.token)


def _undo(
    use_id: str, reason: Reason, caller: Caller, asked: Asked, token: ScopedToken, *, retry_after: int | None = None
) -> Refused:
    with turns.write():
        if counters.give_back(use_id):
            noting.note_refusal(reason, caller, asked, token)
    return refusal(reason, retry_after=retry_after)


def settle(grant: Grant, outcome: Outcome) -> None:
    """End a use: what it cost is spent, and the ledger hears of it. Again is harmless."""
    spent = _spent(grant, outcome)
    with turns.write():
        if counters.settle(grant.id, spent) is None:
            return
        _record_use(grant, outcome, spent)
        if outcome.reflected:
            _record_reflection(grant)


def _spent(grant: Grant, outcome: Outcome) -> Amounts:
    failed = outcome.status is not None and outcome.status >= 400
    # An answer that was cut off says nothing of what it cost: then it cost what was expected.
    tokens = outcome.usage_tokens if outcome.usage_tokens is not None else 0 if failed else grant.reserved.tokens
    usd = -(-tokens * grant.token.microusd_per_mtok // 1_000_000)
    return Amounts(outcome.bytes_out, tokens, usd if outcome.usd is None else round(outcome.usd * 1_000_000))


def _record_use(grant: Grant, outcome: Outcome, spent: Amounts) -> None:
    record(
        "token.redeemed",
        event_id=grant.id,
        actor=noting.broker(grant.token, grant.caller),
        object_type=noting.OBJECT,
        object_id=grant.token_id,
        tenant_id=grant.tenant_id,
        sandbox_id=grant.caller.sandbox_id,
        generation=grant.caller.generation or None,
        outcome=EventOutcome.ERROR if outcome.error else EventOutcome.OK,
        status=outcome.status,
        reason=outcome.error,
        details={
            "service": grant.service.name,
            "method": grant.asked.method,
            "path": grant.asked.path,
            "secret_name": grant.token.secret_name,
            "bytes_in": outcome.bytes_in,
            "bytes_out": outcome.bytes_out,
            "usage": spent.tokens,
            "microusd": spent.microusd,
            "duration_ms": round((time.monotonic() - grant.began) * 1000),
        },
    )


def _record_reflection(grant: Grant) -> None:
    record(
        "secret.reflected",
        actor=noting.broker(grant.token, grant.caller),
        object_type=noting.OBJECT,
        object_id=grant.token_id,
        tenant_id=grant.tenant_id,
        sandbox_id=grant.caller.sandbox_id,
        generation=grant.caller.generation or None,
        details={
            "service": grant.service.name,
            "method": grant.asked.method,
            "path": grant.asked.path,
            "secret_name": grant.token.secret_name,
        },
        assessment=risk.assess(risk.REFLECTED),
    )


def settle_lost() -> int:
    """Settle the uses whose process died by what they reserved, and record them; return how many there were."""
    before = clock.now() - timedelta(seconds=LONGEST_CALL_S)
    uses = list(TokenUse.objects.filter(at__lt=before).select_related("token").order_by("at")[:200])
    return sum(_settle_lost(use) for use in uses)


def _settle_lost(use: TokenUse) -> bool:
    token = use.token
    with turns.write():
        if (settled := counters.settle(use.pk, None)) is None:
            return False
        spent = settled[1]
        caller = Caller(token.sandbox_id, token.generation, token.run)
        record(
            "token.redeemed",
            event_id=use.pk,
            actor=noting.broker(token, caller),
            object_type=noting.OBJECT,
            object_id=token.pk,
            tenant_id=token.tenant_id,
            sandbox_id=token.sandbox_id,
            generation=token.generation or None,
            outcome=EventOutcome.ERROR,
            reason="interrupted",
            details={
                "service": token.service,
                "method": use.method,
                "path": use.path,
                "secret_name": token.secret_name,
                "bytes_out": spent.bytes_out,
                "usage": spent.tokens,
                "microusd": spent.microusd,
            },
        )
    return True
