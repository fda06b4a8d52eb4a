"""Scoped tokens of sandboxes: issued to live ones only, seen and revoked by whom the sandbox belongs to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from django.db import IntegrityError

from corekit import ids
from corekit.actor import SYSTEM
from corekit.errors import Conflict, GatehouseError, NotFound
from sandboxes import networks, node_client, selectors, turns
from sandboxes.errors import IdempotencyMismatch
from sandboxes.models import Sandbox
from sandboxes.states import LIVE, SandboxState
from tenants import policy
from tenants.broker import actions, wishes
from tenants.broker.actions import READ, WRITE, Bound, Issued
from tenants.tokenmodels import ScopedToken, TokenEnd

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet

    from corekit.actor import Actor
    from tenants.broker.wishes import Checked, Wish

_ALIVE = frozenset(LIVE) - {SandboxState.ENDING}


def issue_token(
    *, actor: Actor, sandbox_id: str, wish: Wish, idempotency_key: str | None = None, request_digest: str = ""
) -> Issued:
    """Issue a token to a live sandbox and return it with its text.

    Raises NotFound, InvalidInput or Conflict naming the field, and Conflict for a sandbox that ends. With an
    idempotency key a repeated request gets the first one's token.
    """
    policy.require(actor, WRITE)
    sandbox = selectors.sandbox_for(actor, sandbox_id)
    if idempotency_key is not None and (first := _first_result(actor, sandbox, idempotency_key, request_digest)):
        return first
    checked = wishes.check(sandbox.tenant_id, wish)
    try:
        return _issue(actor, sandbox, wish, checked, idempotency_key, request_digest)
    except IntegrityError:
        # Only the idempotency key can collide: the other of two at the same moment was first.
        first = None
        if idempotency_key is not None:
            first = _first_result(actor, sandbox, idempotency_key, request_digest)
        if first is None:
            raise
        return first


def _issue(
    actor: Actor, sandbox: Sandbox, wish: Wish, checked: Checked, idempotency_key: str | None, request_digest: str
) -> Issued:
    with turns.write():
        # Whoever ends it ends its tokens in the same transaction, and waits for this one or is waited for.
        rows = Sandbox.everywhere().select_for_update().filter(pk=sandbox.pk, state__in=_ALIVE)
        generation = rows.values_list("generation", flat=True).first()
        if generation is None:
            raise Conflict("The sandbox is ending.", field="sandbox_id")
        issued = actions.issue(
            actor=actor,
            bound=Bound(sandbox.tenant_id, sandbox.pk, generation),
            wish=wish,
            checked=checked,
            idempotency_key=idempotency_key,
            request_digest=request_digest,
        )
        narrows = networks.follow_token(issued.token)
    if narrows:
        # Where that fails, whoever looks next tells the node.
        with contextlib.suppress(GatehouseError):
            networks.tell(node_client.local_node(), sandbox)
    return issued


def _first_result(actor: Actor, sandbox: Sandbox, key: str, request_digest: str) -> Issued | None:
    token = ScopedToken.everywhere().filter(tenant_id=sandbox.tenant_id, idempotency_key=key).first()
    if token is None:
        return None
    if (token.request_digest, token.created_by, token.sandbox_id) != (request_digest, actor.id[:64], sandbox.pk):
        raise IdempotencyMismatch(field="Idempotency-Key")
    return Issued(token, actions.text_of(token))


def tokens_of(actor: Actor, sandbox_id: str) -> QuerySet[ScopedToken]:
    """Return the tokens of a sandbox, those that count no more too. Raises NotFound."""
    policy.require(actor, READ)
    return _of(actor, sandbox_id)


def token_for(actor: Actor, sandbox_id: str, token_id: str) -> ScopedToken:
    """Return one token of a sandbox. Raises NotFound."""
    return _one(tokens_of(actor, sandbox_id), token_id)


def revoke_token(*, actor: Actor, sandbox_id: str, token_id: str) -> None:
    """Let one token count no more, at once. Raises NotFound."""
    policy.require(actor, WRITE)
    token = _one(_of(actor, sandbox_id), token_id)
    with turns.write():
        actions.revoke(actor=actor, token=token)


def void_tokens(*, actor: Actor, sandbox_id: str) -> int:
    """Let no token of a sandbox count any more, at once; return how many had a use left. Raises NotFound."""
    policy.require(actor, WRITE)
    sandbox = _own(actor, sandbox_id)
    with turns.write():
        return actions.end_of_sandbox(sandbox.pk, reason=TokenEnd.REVOKED, actor=actor)


def void_for_risk(sandbox: Sandbox) -> int:
    """End all tokens of a sandbox because the audit's judgement asks for it; return how many had a use left."""
    return actions.end_of_sandbox(sandbox.pk, reason=TokenEnd.RISK, actor=SYSTEM)


def were_voided(sandbox: Sandbox, *, since: datetime) -> bool:
    """Say whether tokens of a sandbox were voided for risk since a time."""
    rows = ScopedToken.everywhere().filter(sandbox_id=sandbox.pk, tenant_id=sandbox.tenant_id)
    return rows.filter(end_reason=TokenEnd.RISK, ended_at__gte=since).exists()


def _of(actor: Actor, sandbox_id: str) -> QuerySet[ScopedToken]:
    return ScopedToken.visible_to(actor).filter(sandbox_id=_own(actor, sandbox_id).pk)


def _own(actor: Actor, sandbox_id: str) -> Sandbox:
    """Return a sandbox that the actor may see, also one that ended. Raises NotFound."""
    plain = ids.strip_client_suffix(sandbox_id)
    found = Sandbox.visible_to(actor).filter(pk=plain).first() if ids.is_sandbox_id(plain) else None
    if found is None:
        raise selectors.no_sandbox()
    return found


def _one(rows: QuerySet[ScopedToken], token_id: str) -> ScopedToken:
    found = rows.filter(pk=token_id).first() if ids.is_key_id(token_id) else None
    if found is None:
        raise NotFound("There is no such token.")
    return found
