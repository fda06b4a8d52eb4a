"""Carry out what the audit's judgement asks for of sandboxes whose acts met a threshold.

They are paused, their network is cut, or their scoped tokens are voided.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from django.db.models import Exists, OuterRef, Q

from audit import recording
from audit.models import Verdict, VerdictAction, VerdictState
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import Conflict, GatehouseError, NotFound
from sandboxes import actions, networks, tokens, turns
from sandboxes.errors import EgressUnavailable, NodeSilent, NodeUnavailable
from sandboxes.models import Sandbox
from sandboxes.node_client import local_node
from sandboxes.states import NetworkMode, SandboxState

if TYPE_CHECKING:
    from django.db.models import QuerySet

logger = structlog.get_logger("sandboxes.verdicts")

BATCH = 50
PATIENCE = timedelta(seconds=60)
"""For how long what the node refuses is tried again."""
ENDED, RESTARTED, STILL = "The sandbox has ended.", "The sandbox was started anew.", "The sandbox is paused already."
NO_NETWORK, STILL_CUT = "The sandbox has no network.", "Its network is cut already."
NO_TOKENS = "It has no tokens that count."
_NOTHING_TO_DO = frozenset({STILL, NO_NETWORK, STILL_CUT, NO_TOKENS})
_OVER = frozenset({SandboxState.ENDING, SandboxState.ENDED})
_SOON = frozenset({SandboxState.STARTING, SandboxState.RESUMING})
# What is done → the events that say so, and that it could not be done.
_EVENTS = {
    VerdictAction.PAUSE: ("risk.paused", "risk.pause_failed"),
    VerdictAction.CUT: ("risk.network_cut", "risk.network_cut_failed"),
    VerdictAction.VOID: ("risk.tokens_voided", "risk.tokens_void_failed"),
}


def carry_out() -> int:
    """Do what verdicts wait for, oldest first; return how many were settled. What fails for now waits on."""
    settled = sum(_carry_out(verdict) for verdict in _waiting().order_by("created_at")[:BATCH])
    _lift_overridden()
    return settled


def _waiting() -> QuerySet[Verdict]:
    return Verdict.objects.filter(action__in=list(_EVENTS), state=VerdictState.PENDING)


def _carry_out(verdict: Verdict) -> bool:
    sandbox = Sandbox.everywhere().filter(pk=verdict.sandbox_id, tenant_id=verdict.tenant_id).first()
    if sandbox is None or sandbox.state in _OVER:
        return _settle(verdict, VerdictState.FAILED, ENDED)
    if verdict.generation not in {None, sandbox.generation}:
        return _settle(verdict, VerdictState.FAILED, RESTARTED)
    try:
        note = _ACTS[VerdictAction(verdict.action)](verdict, sandbox)
    except (NodeUnavailable, NodeSilent, EgressUnavailable, Conflict) as error:
        # Whether it is done by now, or the sandbox has ended, the next look will tell.
        logger.warning("verdict_waits", sandbox_id=sandbox.pk, error=error.code)
        return False
    except NotFound:
        return _settle(verdict, VerdictState.FAILED, ENDED)
    except GatehouseError as error:
        logger.warning("verdict_waits", sandbox_id=sandbox.pk, error=error.code)
        patient = clock.now() - verdict.created_at < PATIENCE
        return False if patient else _settle(verdict, VerdictState.FAILED, error.message)
    return note is not None and _settle(verdict, VerdictState.DONE, note)


def _pause(verdict: Verdict, sandbox: Sandbox) -> str | None:
    """Pause the sandbox; return why nothing had to be done, "" when it was, None when it is too early."""
    if sandbox.state == SandboxState.PAUSED:
        # Paused since then, it was by this: whoever did it died before it could say so.
        since = sandbox.paused_at is not None and sandbox.paused_at > verdict.created_at
        return "" if since else STILL
    if sandbox.state in _SOON:
        return None
    actions.pause_for_risk(sandbox)
    return ""


def _cut(verdict: Verdict, sandbox: Sandbox) -> str | None:
    """Let nothing out of the sandbox any more; return as `_pause`."""
    if sandbox.network_mode == NetworkMode.NONE:
        return NO_NETWORK
    with turns.write():
        networks.cut(sandbox)
    if sandbox.state == SandboxState.STARTING:
        return None
    sandbox.refresh_from_db(fields=["network_version", "network_acked"])
    if sandbox.network_acked < sandbox.network_version:
        networks.tell(local_node(), sandbox)
    others = Verdict.objects.filter(sandbox_id=sandbox.pk, generation=verdict.generation, state=VerdictState.DONE)
    return STILL_CUT if others.filter(action=VerdictAction.CUT).exists() else ""


def _void(verdict: Verdict, sandbox: Sandbox) -> str | None:
    """Let no token of the sandbox count any more; return as `_pause`. Nothing brings them back."""
    with turns.write():
        voided = tokens.void_for_risk(sandbox)
    # What ended since then ended by this: whoever did it died before it could say so.
    return "" if voided or tokens.were_voided(sandbox, since=verdict.created_at) else NO_TOKENS


_ACTS = {VerdictAction.PAUSE: _pause, VerdictAction.CUT: _cut, VerdictAction.VOID: _void}


def _settle(verdict: Verdict, state: VerdictState, note: str) -> bool:
    """Write what came of it and of others that ask the same, unless somebody overrode it meanwhile, and one event."""
    with turns.write():
        same = {"sandbox_id": verdict.sandbox_id, "generation": verdict.generation, "action": verdict.action}
        rows = _waiting().filter(**same)
        if not rows.filter(pk=verdict.pk).exists():
            return False
        rows.update(state=state, note=note[:1000], decided_by=SYSTEM.id, decided_at=clock.now())
        if note in _NOTHING_TO_DO:
            return True
        details = recording.verdict_details(verdict)
        done, failed = _EVENTS[VerdictAction(verdict.action)]
        recording.record(
            done if state == VerdictState.DONE else failed,
            actor=SYSTEM,
            object_type="sandbox",
            object_id=verdict.sandbox_id,
            tenant_id=verdict.tenant_id,
            generation=verdict.generation,
            details=details if state == VerdictState.DONE else details | {"error": note},
        )
    return True


def _lift_overridden() -> None:
    """Give sandboxes their network back whose verdicts somebody overrode; who tells nodes tells it."""
    holding = Verdict.objects.filter(
        Q(generation=OuterRef("generation")) | Q(generation=None),
        sandbox_id=OuterRef("pk"),
        action=VerdictAction.CUT,
    ).exclude(state=VerdictState.OVERRIDDEN)
    rows = Sandbox.everywhere().filter(~Exists(holding), network_cut=True, ended_at=None)
    for sandbox in rows[:BATCH]:
        with turns.write():
            if networks.lift(sandbox):
                sandbox.refresh_from_db(fields=["network_version"])
                networks.record_change(SYSTEM, sandbox, "override")
