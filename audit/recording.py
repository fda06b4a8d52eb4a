"""The only way to write audit rows. Call `record` inside the transaction of what it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from django.conf import settings
from django.db import transaction

from audit import argument_copies, cleaning, flowrisk, insertion, judging, nodeevents, registry
from audit.models import Decision, Event, Outcome, VerdictAction
from audit.risk.findings import band_of
from corekit import clock, ids, tokens, tracing
from corekit.actor import SYSTEM
from corekit.fingerprint import arguments_shape, fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from audit.models import Verdict
    from audit.risk.findings import Assessment
    from corekit.actor import Actor

logger = structlog.get_logger("gatehouse.audit")

PLATFORM = "platform"
MAX_DETAILS_BYTES = cleaning.MAX_DETAILS_BYTES
SHELL = "shell"
_BY_HAND = "manage"


def record(
    code: str,
    *,
    actor: Actor,
    object_type: str,
    object_id: str,
    tenant_id: str | UUID | None,
    outcome: str = Outcome.OK,
    arguments: Mapping[str, object] | None = None,
    details: Mapping[str, object] | None = None,
    risk: tuple[int, str] | None = None,
    assessment: Assessment | None = None,
    seed: Mapping[str, object] | None = None,
    object_name: str = "",
    sandbox_id: str = "",
    generation: int | None = None,
    tier: str = "",
    policy_version: str = "",
    decision: str = "",
    status: int | None = None,
    reason: str = "",
    tool_name: str = "",
    host: str = "",
    context: Mapping[str, object] | None = None,
    event_id: str | None = None,
    at: datetime | None = None,
) -> Event:
    """Write who did what to which object, from where, and how it ended.

    Arguments are kept as a keyed hash and a shape only; `details` are kept as they are, without secrets, and may
    hold only the names that the code declares. The risk is an `assessment` with the `seed` ruleset's beside it, or,
    for acts that are no code, a score up to 100 and what it is for. Raises UnknownCodeError: that is a mistake of
    the caller.
    """
    shown = dict(details or {})
    registry.check_details(code, shown)
    received = clock.now()
    event = Event(
        id=event_id or ids.new_event_id(),
        tenant_id=cleaning.uuid(tenant_id),
        code=code,
        at=at or received,
        received_at=received,
        producer=producer(),
        object_type=cleaning.text(object_type, 32),
        object_id=cleaning.text(object_id, 128),
        object_name=cleaning.text(object_name, 200),
        sandbox_id=cleaning.text(sandbox_id or (object_id if object_type == "sandbox" else ""), 64),
        generation=generation,
        tier=cleaning.text(tier, 16),
        policy_version=cleaning.text(policy_version, 64),
        outcome=Outcome(outcome),
        decision=Decision(decision) if decision else Decision.DENY if outcome == Outcome.REFUSED else "",
        status=status,
        reason=cleaning.text(reason or shown.get("reason"), 200),
        tool_name=cleaning.text(tool_name, 64),
        host=cleaning.text(host, 255),
        context=cleaning.details(context or {}),
        details=cleaning.details(shown),
        **_who(actor),
        **_risk(risk, assessment, seed),
    )
    if arguments is not None:
        event.args_key_id = tokens.audit_key_id(received)
        event.args_hash, event.args_size = fingerprint(_key(tenant_id, event.args_key_id), arguments)
        event.args_shape = cleaning.details(arguments_shape(arguments))
    with transaction.atomic():
        event.save()
        _judge([event])
    return event


def _judge(events: Sequence[Event]) -> None:
    """Judge new events, and write down which ones were flagged."""
    flags = [verdict for verdict in judging.judge(events) if verdict.action == VerdictAction.FLAG]
    insertion.insert([_flagged(verdict) for verdict in flags])


def _flagged(verdict: Verdict) -> Event:
    at = clock.now()
    of_sandbox = bool(verdict.sandbox_id)
    return Event(
        tenant_id=verdict.tenant_id,
        code="risk.flagged",
        at=at,
        received_at=at,
        producer=producer(),
        object_type="sandbox" if of_sandbox else "event",
        object_id=verdict.sandbox_id if of_sandbox else verdict.event_id,
        sandbox_id=verdict.sandbox_id,
        generation=verdict.generation,
        details=verdict_details(verdict),
        **_who(SYSTEM),
    )


def verdict_details(verdict: Verdict) -> dict[str, object]:
    """Return what events about a verdict say of it."""
    return {
        "score": verdict.score,
        "threshold": verdict.threshold,
        "event": verdict.event_id,
        "rules": list(verdict.reasons),
    }


def producer() -> str:
    """Return which process writes: `web`, `worker`, or `shell` for a command by hand."""
    service: str = settings.GATEHOUSE.service
    return SHELL if service == _BY_HAND else service


def _who(actor: Actor) -> dict[str, Any]:
    trace = tracing.current()
    return {
        "actor_kind": actor.kind,
        "actor_id": cleaning.text(actor.id, 64),
        "actor_name": cleaning.text(actor.name, 200),
        "actor_auth": cleaning.text(actor.auth, 16),
        "on_behalf_of": cleaning.text(actor.on_behalf_of, 64),
        "token_id": cleaning.text(actor.token_id, 64),
        "origin": cleaning.address(actor.origin),
        "user_agent": cleaning.text(trace.user_agent if trace else "", 200),
        "request_id": cleaning.text(actor.request_id or (trace.request_id if trace else ""), 64),
        "trace_id": trace.trace_id if trace else "",
        "span_id": trace.span_id if trace else "",
    }


def _risk(
    risk: tuple[int, str] | None, assessment: Assessment | None, seed: Mapping[str, object] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {} if assessment is None else cleaning.assessed(assessment)
    if risk is not None:
        found |= {"risk_score": risk[0], "risk_band": band_of(risk[0]), "risk_reasons": cleaning.reasons([risk[1]])}
    return found | ({"risk_seed": cleaning.seed(seed)} if seed else {})


def record_node_event(event: Mapping[str, Any], *, tenant_id: str | UUID) -> bool:
    """Write one event of a node's spool; return False when its id is already there."""
    return record_node_events([(event, tenant_id)])[0]


def record_node_events(events: Sequence[tuple[Mapping[str, Any], str | UUID | None]]) -> list[bool]:
    """Write events of a node's spool, each with the tenant that our own rows name; say which ones were new.

    The spool is delivered at least once, so known ids are skipped. An event that can't be read becomes a row
    `spool.malformed`, because refusing it would stop the spool behind it.
    """
    rows = [nodeevents.read(event, tenant_id) for event, tenant_id in events]
    with transaction.atomic():
        seen = set(Event.objects.filter(id__in={row.id for row in rows}).values_list("id", flat=True))
        fresh: list[bool] = []
        for row in rows:
            fresh.append(row.id not in seen)
            seen.add(row.id)
        added = [row for row, is_new in zip(rows, fresh, strict=True) if is_new]
        flowrisk.judge_flows(added)
        insertion.insert(added)
        argument_copies.keep(
            (event, row) for (event, _), row, is_new in zip(events, rows, fresh, strict=True) if is_new
        )
        _judge(added)
    return fresh


def _key(tenant_id: str | UUID | None, key_id: str) -> bytes:
    owner = cleaning.uuid(tenant_id)
    return tokens.audit_key(settings.GATEHOUSE.seed(), owner.hex if owner else PLATFORM, key_id)
