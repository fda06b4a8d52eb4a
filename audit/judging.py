"""Judge events by their risk: the level of sandboxes and tenants, and verdicts where a threshold is met.

It runs in the transaction that stores the events, so that there is a verdict if and only if there is its event. The
audit judges; whoever is told to act reads the verdicts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.models import (
    Phase,
    RiskLevel,
    RiskPolicy,
    RiskSuppression,
    Verdict,
    VerdictAction,
    VerdictState,
)
from audit.risk.scoring import noisy_or
from corekit import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from audit.models import Event

SANDBOX, TENANT = "sandbox", "tenant"
HALF_LIFE_S = {SANDBOX: 600.0, TENANT: 86_400.0}
"""After how many seconds what happened counts half."""
NOTEWORTHY = 25
"""Lesser scores don't add up: ten thousand harmless commands are harmless."""
_SHARE = 4
_MAX_RULES = 20


@dataclass(frozen=True, slots=True)
class Counted:
    """One event with the score that counts: without the rules that its tenant muted."""

    event: Event
    tenant_id: UUID
    score: int
    rules: list[str]


def judge(events: Iterable[Event]) -> list[Verdict]:
    """Bring levels up to date with new events and return the new verdicts, inside the caller's transaction."""
    scored = [
        (event, event.tenant_id)
        for event in events
        # A result repeats what its intent said.
        if event.risk_score and event.tenant_id is not None and event.phase != Phase.RESULT
    ]
    if not scored:
        return []
    now = clock.now()
    tenants = {tenant_id for _, tenant_id in scored}
    muted: dict[UUID, set[str]] = defaultdict(set)
    active = RiskSuppression.objects.filter(tenant_id__in=tenants, until__gt=now)
    for tenant_id, rule in active.values_list("tenant_id", "rule"):
        muted[tenant_id].add(rule)
    counted = [_counted(event, tenant_id, muted[tenant_id]) for event, tenant_id in scored]
    _raise_levels(counted, now)
    policies = RiskPolicy.objects.in_bulk(tenants)
    verdicts = [
        verdict for one in counted for verdict in _verdicts(one, policies.get(one.tenant_id) or RiskPolicy(), now)
    ]
    if verdicts:
        Verdict.objects.bulk_create(verdicts)
    return verdicts


def _counted(event: Event, tenant_id: UUID, muted: set[str]) -> Counted:
    rules = [rule for rule in event.risk_reasons if rule not in muted]
    score = event.risk_score or 0
    if muted and len(rules) < len(event.risk_reasons):
        heard = [found for found in event.risk_findings if found["rule"] not in muted]
        score = min(score, noisy_or((found["rule"], found["weight"]) for found in heard))
    return Counted(event, tenant_id, score, rules[:_MAX_RULES])


def _verdicts(one: Counted, policy: RiskPolicy, now: datetime) -> Iterable[Verdict]:
    if policy.flag_at is not None and one.score >= policy.flag_at:
        yield _verdict(one, VerdictAction.FLAG, policy.flag_at, now)
    if policy.pause_at is not None and one.score >= policy.pause_at and one.event.sandbox_id:
        yield _verdict(one, VerdictAction.PAUSE, policy.pause_at, now)
    if policy.cut_at is not None and one.score >= policy.cut_at and one.event.sandbox_id:
        yield _verdict(one, VerdictAction.CUT, policy.cut_at, now)
    if policy.void_at is not None and one.score >= policy.void_at and one.event.sandbox_id:
        yield _verdict(one, VerdictAction.VOID, policy.void_at, now)


def _verdict(one: Counted, action: VerdictAction, threshold: int, now: datetime) -> Verdict:
    # To flag is all that is to be done about it; everything else waits for who can.
    done = action == VerdictAction.FLAG
    return Verdict(
        tenant_id=one.tenant_id,
        event_id=one.event.pk,
        sandbox_id=one.event.sandbox_id,
        generation=one.event.generation,
        action=action,
        state=VerdictState.DONE if done else VerdictState.PENDING,
        score=one.score,
        threshold=threshold,
        reasons=one.rules,
        created_at=now,
        decided_at=now if done else None,
    )


# --- levels


def _raise_levels(counted: Sequence[Counted], now: datetime) -> None:
    subjects: dict[tuple[str, str], list[Counted]] = defaultdict(list)
    for one in counted:
        subjects[TENANT, one.tenant_id.hex].append(one)
        if one.event.sandbox_id:
            subjects[SANDBOX, one.event.sandbox_id].append(one)
    ids = {subject_id for _, subject_id in subjects}
    known = {
        (level.kind, level.subject_id): level
        for level in RiskLevel.objects.select_for_update().filter(subject_id__in=ids).order_by("kind", "subject_id")
    }
    levels = []
    # In one order everywhere, so that two writers wait for each other instead of for ever.
    for kind, subject_id in sorted(subjects):
        acts = subjects[kind, subject_id]
        level = known.get((kind, subject_id)) or RiskLevel(
            kind=kind, subject_id=subject_id, tenant_id=acts[0].tenant_id, updated_at=now, rules=[]
        )
        _raise(level, acts, now)
        levels.append(level)
    RiskLevel.objects.bulk_create(
        levels,
        update_conflicts=True,
        unique_fields=["kind", "subject_id"],
        update_fields=["score", "peak", "rules", "updated_at"],
    )


def _raise(level: RiskLevel, acts: Sequence[Counted], now: datetime) -> None:
    score, rules = current_score(level, now), list(level.rules)
    for act in acts:
        if act.score >= NOTEWORTHY:
            score = 100 - (100 - score) * (1 - act.score / 100 / _SHARE)
        if act.score >= score:
            rules = act.rules + [rule for rule in rules if rule not in act.rules]
        score = max(score, float(act.score))
    level.pk = None
    level.score, level.updated_at = score, now
    level.peak = max(level.peak, round(score))
    level.rules = rules[:_MAX_RULES]


def level_of(kind: str, subject_id: str) -> RiskLevel | None:
    """Return the level of a sandbox or a tenant as it was last raised, None while nothing raised it."""
    return RiskLevel.objects.filter(kind=kind, subject_id=subject_id).first()


def current_score(level: RiskLevel, now: datetime) -> float:
    """Return what a level counts at a time: half after each half-life."""
    passed = max(0.0, (now - level.updated_at).total_seconds())
    return level.score * float(0.5 ** (passed / HALF_LIFE_S[level.kind]))
