"""How a sandbox's row ends. Every end passes here, so that a reservation is released exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corekit import clock
from sandboxes import turns
from sandboxes.errors import UnknownAtNode
from sandboxes.models import Sandbox
from sandboxes.states import LIVE, TABLE, EndReason, SandboxState
from tenants import quota
from tenants.broker import actions as token_actions

if TYPE_CHECKING:
    from datetime import datetime

    from sandboxes.node_client import NodeClient


def end_row(sandbox_id: str, *, reason: str, ended_at: datetime | None = None) -> bool:
    """Move a live row to `ended` and release its reservation, inside the caller's transaction.

    Returns False, and changes nothing, when it had ended already: the first reason stays.
    """
    moved = mark_ended(sandbox_id, reason=reason, ended_at=ended_at)
    if moved:
        quota.release(sandbox_id)
    return moved


def mark_ended(sandbox_id: str, *, reason: str, ended_at: datetime | None = None) -> bool:
    """Do the first half of `end_row`; who gets True must release the reservation in the same transaction.

    Whoever ends several in one transaction marks them all before it releases the first, because the others
    lock a row before its tenant's counters too.
    """
    changes: dict[str, Any] = {"end_reason": known_reason(reason), "ended_at": ended_at or clock.now()}
    if reason in {EndReason.START_FAILED, EndReason.QUARANTINED}:
        # A create that failed may be asked for again with the same key.
        changes["idempotency_key"] = None
    live = Sandbox.everywhere().filter(pk=sandbox_id, state__in=LIVE)
    moved = bool(live.update(state=SandboxState.ENDED, **changes))
    if moved:
        token_actions.end_of_sandbox(sandbox_id)
    return moved


def mark_ending(sandbox_id: str, *, reason: EndReason) -> bool:
    """Write down that a sandbox must go, before the node is asked. Returns False when it is not live.

    Whoever dies afterwards: the row says what is left to do, and the reconciler does it.
    """
    moved = (
        Sandbox.everywhere()
        .filter(pk=sandbox_id, state__in=TABLE.before(SandboxState.ENDING))
        .update(state=SandboxState.ENDING, end_reason=reason)
    )
    if moved:
        # Not only once it is gone: what it holds opens nothing from now on.
        token_actions.end_of_sandbox(sandbox_id)
    return bool(moved) or Sandbox.everywhere().filter(pk=sandbox_id, state=SandboxState.ENDING).exists()


def finish_ending(client: NodeClient, sandbox: Sandbox, *, reason: EndReason) -> None:
    """Stop a sandbox whose row is `ending` at the node, then end the row.

    Returns when it is really gone. Raises NodeUnavailable or NodeRefused when the node could not say so; the
    row then stays `ending`.
    """
    try:
        said = str(client.stop(sandbox.pk, sandbox.generation).get("reason") or "")
    except UnknownAtNode:
        said = ""
    with turns.write():
        end_row(sandbox.pk, reason=final_reason(wanted=reason, said=said))


def final_reason(*, wanted: str, said: str) -> str:
    """Return why a sandbox ended, from what we wanted ("" for nothing) and what the node said.

    A stop that we asked for is `killed` to the node; only we know what for.
    """
    return wanted if wanted and said in {"", EndReason.KILLED} else said


def known_reason(reason: str) -> str:
    """Return the reason if it is one of ours, else `lost`: a newer node may know more words."""
    return reason if reason in EndReason.values else EndReason.LOST.value
