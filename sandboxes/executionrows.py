"""An execution's row: written before anything happens, moved by conditional updates, ended exactly once.

Whoever works on one may die at any moment. Its sandbox then ends at its own deadline, and `end_overdue` ends the row.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from audit import cleaning, recording
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import GatehouseError, NotFound
from sandboxes import actions, turns
from sandboxes.errors import IdempotencyInProgress, IdempotencyMismatch
from sandboxes.models import Execution, Sandbox
from sandboxes.states import EXECUTION_ENDS, EXECUTION_TABLE, LIVE, ExecutionState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corekit.actor import Actor

logger = structlog.get_logger("sandboxes.executions")

OBJECT = "execution"
START_S = 40
"""For how long a start may take, at most."""
WRAP_UP_S = 15
"""How much longer than the code its sandbox may live: for the last bytes, and for its end."""
OUTPUT_KEPT = timedelta(hours=24)
_LONGEST_REASON = 300
_LOST = "Whoever worked on it is gone."


def first_result(actor: Actor, key: str, request_digest: str) -> Execution | None:
    """Return the row that an earlier request with this key got, or None when there was none.

    Raises IdempotencyMismatch when that request was another one, and IdempotencyInProgress while it runs.
    """
    row = Execution.visible_to(actor).filter(idempotency_key=key).first()
    if row is None:
        return None
    if row.request_digest != request_digest or row.created_by != actor.id:
        raise IdempotencyMismatch(field="Idempotency-Key")
    if row.state not in EXECUTION_ENDS:
        raise IdempotencyInProgress(field="Idempotency-Key", retry_after=1)
    return row


def begin(actor: Actor, row: Execution, arguments: Mapping[str, object]) -> None:
    """Write the intent with its event. Raises IntegrityError when somebody was first with the idempotency key."""
    row.until = clock.now() + timedelta(seconds=START_S + row.timeout_s + WRAP_UP_S)
    with turns.write():
        row.save(force_insert=True)
        recording.record(
            "execution.started",
            actor=actor,
            object_type=OBJECT,
            object_id=row.pk,
            tenant_id=row.tenant_id,
            tier=row.tier,
            arguments=arguments,
            details={
                "language": row.language,
                "template": row.template_name,
                "tier": row.tier,
                "requested_tier": row.requested_tier,
                "floor": row.floor,
                "score": row.risk["score"],
                "timeout_ms": row.timeout_s * 1000,
            },
        )


def sandbox_key(row: Execution) -> str:
    """Return the idempotency key of its sandbox, by which it is found although its id was not written down."""
    return f"{OBJECT}-{row.pk}"


def run_in(row: Execution, sandbox_id: str) -> bool:
    """Write that its sandbox is there. Returns False when the row was ended meanwhile."""
    until = clock.now() + timedelta(seconds=row.timeout_s + WRAP_UP_S)
    return _move(row, ExecutionState.RUNNING, {"sandbox_id": sandbox_id, "until": until})


def end(actor: Actor, row: Execution, state: ExecutionState, *, reason: str = "", **changes: Any) -> bool:
    """End a row with its event. Returns False, and changes nothing, when it had ended already."""
    # The guest may have had its word in it.
    said = cleaning.text(reason, _LONGEST_REASON)
    return _move(row, state, {**changes, "reason": said, "ended_at": clock.now()}, actor)


def _move(row: Execution, state: ExecutionState, changes: dict[str, Any], ended_by: Actor | None = None) -> bool:
    changes["state"] = state
    with turns.write():
        before = EXECUTION_TABLE.before(state)
        moved = Execution.everywhere().filter(pk=row.pk, state__in=before).update(**changes)
        if moved:
            for name, value in changes.items():
                setattr(row, name, value)
        if moved and ended_by is not None:
            _record_end(ended_by, row)
    if not moved:
        row.refresh_from_db(from_queryset=Execution.everywhere())
    return bool(moved)


def _record_end(actor: Actor, row: Execution) -> None:
    recording.record(
        "execution.ended",
        actor=actor,
        object_type=OBJECT,
        object_id=row.pk,
        tenant_id=row.tenant_id,
        outcome="error" if row.state == ExecutionState.FAILED else "ok",
        sandbox_id=row.sandbox_id,
        tier=row.tier,
        status=row.exit_code,
        details={
            "state": str(row.state),
            "sandbox": row.sandbox_id,
            "exit_code": row.exit_code,
            "duration_ms": row.duration_ms,
            "truncated": row.truncated,
            "reason": row.reason,
        },
    )


def drop_sandbox(actor: Actor, sandbox_id: str) -> bool:
    """End an execution's sandbox. Returns False when the node could not say so: the reconciler then ends it."""
    try:
        actions.kill_sandbox(actor=actor, sandbox_id=sandbox_id)
    except NotFound:
        return True
    except GatehouseError as error:
        logger.warning("sandbox_not_ended", sandbox_id=sandbox_id, error=error.code)
        return False
    return True


def end_overdue() -> int:
    """End the rows that nobody works on any more, their sandboxes first; returns how many."""
    ended = 0
    for row in Execution.everywhere().filter(ended_at=None, until__lt=clock.now()).order_by("pk"):
        live = Sandbox.everywhere().filter(tenant_id=row.tenant_id, idempotency_key=sandbox_key(row), state__in=LIVE)
        sandbox = live.first()
        if sandbox is None or drop_sandbox(SYSTEM, sandbox.pk):
            ended += end(SYSTEM, row, ExecutionState.FAILED, reason=_LOST, idempotency_key=None)
    return ended


def forget_output() -> int:
    """Forget what was written too long ago; returns of how many executions."""
    old = Execution.everywhere().filter(output_until__lt=clock.now())
    return old.update(stdout="", stderr="", output_until=None)
