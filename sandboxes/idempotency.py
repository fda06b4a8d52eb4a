"""A create that is asked for twice with the same Idempotency-Key happens once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.access import Access, token_for
from sandboxes.errors import IdempotencyInProgress, IdempotencyMismatch
from sandboxes.models import Sandbox
from sandboxes.states import EndReason, SandboxState

if TYPE_CHECKING:
    from corekit.actor import Actor


def first_result(actor: Actor, key: str, request_digest: str) -> Access | None:
    """Return the sandbox that an earlier request with this key got, or None when there was none.

    Raises IdempotencyMismatch when that request was another one, and IdempotencyInProgress while it runs.
    """
    sandbox = Sandbox.visible_to(actor).filter(idempotency_key=key).first()
    if sandbox is None:
        return None
    if sandbox.request_digest != request_digest or sandbox.created_by != actor.id:
        raise IdempotencyMismatch(field="Idempotency-Key")
    if sandbox.state == SandboxState.STARTING or sandbox.end_reason == EndReason.START_FAILED:
        raise IdempotencyInProgress(field="Idempotency-Key", retry_after=1)
    return Access(sandbox, token_for(actor, sandbox))
