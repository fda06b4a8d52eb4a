"""Carry out what the audit's judgement asks for: pause sandboxes whose acts met their tenant's threshold."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from audit import recording
from audit.models import Verdict, VerdictAction, VerdictState
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import Conflict, GatehouseError, NotFound
from sandboxes import actions, turns
from sandboxes.errors import NodeSilent, NodeUnavailable
from sandboxes.models import Sandbox
from sandboxes.states import SandboxState

if TYPE_CHECKING:
    from django.db.models import QuerySet

logger = structlog.get_logger("sandboxes.verdicts")

BATCH = 50
PATIENCE = timedelta(seconds=60)
"""For how long a pause that the node refuses is tried again."""
ENDED, RESTARTED, STILL = "The sandbox has ended.", "The sandbox was started anew.", "The sandbox is paused already."
_OVER = frozenset({SandboxState.ENDING, SandboxState.ENDED})
_SOON = frozenset({SandboxState.STARTING, SandboxState.RESUMING})


def carry_out() -> int:
    """Pause what verdicts wait for, oldest first; return how many were settled. What fails for now waits on."""
    return sum(_carry_out(verdict) for verdict in _waiting().order_by("created_at")[:BATCH])


def _waiting() -> QuerySet[Verdict]:
    return Verdict.objects.filter(action=VerdictAction.PAUSE, state=VerdictState.PENDING)


def _carry_out(verdict: Verdict) -> bool:
    sandbox = Sandbox.everywhere().filter(pk=verdict.sandbox_id, tenant_id=verdict.tenant_id).first()
    if sandbox is None or sandbox.state in _OVER:
        return _settle(verdict, VerdictState.FAILED, ENDED)
    if verdict.generation not in {None, sandbox.generation}:
        return _settle(verdict, VerdictState.FAILED, RESTARTED)
    if sandbox.state == SandboxState.PAUSED:
        # Paused since then, it was by this: whoever did it died before it could say so.
        since = sandbox.paused_at is not None and sandbox.paused_at > verdict.created_at
        return _settle(verdict, VerdictState.DONE, "" if since else STILL)
    if sandbox.state in _SOON:
        return False
    try:
        actions.pause_for_risk(sandbox)
    except (NodeUnavailable, NodeSilent, Conflict) as error:
        # Whether it is paused by now, or has ended, the next look will tell.
        logger.warning("verdict_waits", sandbox_id=sandbox.pk, error=error.code)
        return False
    except NotFound:
        return _settle(verdict, VerdictState.FAILED, ENDED)
    except GatehouseError as error:
        logger.warning("verdict_waits", sandbox_id=sandbox.pk, error=error.code)
        patient = clock.now() - verdict.created_at < PATIENCE
        return False if patient else _settle(verdict, VerdictState.FAILED, error.message)
    return _settle(verdict, VerdictState.DONE, "")


def _settle(verdict: Verdict, state: VerdictState, note: str) -> bool:
    """Write what came of it and of others that ask the same, unless somebody overrode it meanwhile, and one event."""
    with turns.write():
        rows = _waiting().filter(sandbox_id=verdict.sandbox_id, generation=verdict.generation)
        if not rows.filter(pk=verdict.pk).exists():
            return False
        rows.update(state=state, note=note[:1000], decided_by=SYSTEM.id, decided_at=clock.now())
        if note == STILL:
            return True
        details = recording.verdict_details(verdict)
        recording.record(
            "risk.paused" if state == VerdictState.DONE else "risk.pause_failed",
            actor=SYSTEM,
            object_type="sandbox",
            object_id=verdict.sandbox_id,
            tenant_id=verdict.tenant_id,
            generation=verdict.generation,
            details=details if state == VerdictState.DONE else details | {"error": note},
        )
    return True
