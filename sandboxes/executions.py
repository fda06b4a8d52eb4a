"""Run a piece of code once: judged first, at the tier that it needs, in a sandbox of its own, gone afterwards."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import IntegrityError

from audit import cleaning, recording
from audit.models import RiskPolicy, RiskSuppression
from audit.risk.scoring import combine
from corekit import clock, ids
from corekit.errors import Forbidden, GatehouseError, InvalidInput, TierUnavailable, Unavailable
from corekit.tiers import named, strongest
from sandboxes import (
    access,
    actions,
    assessing,
    executionrows,
    floors,
    inside,
    networks,
    node_client,
    selectors,
    turns,
)
from sandboxes.executionrows import OBJECT, OUTPUT_KEPT, WRAP_UP_S
from sandboxes.launch import Ingress
from sandboxes.models import Execution
from sandboxes.states import ExecutionState
from tenants import policy, quota
from tenants.networks.presets import ISOLATED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.risk.findings import Assessment
    from corekit.actor import Actor
    from sandboxes.access import Access

INTERPRETERS = {"python": ("python3", "-c"), "bash": ("bash", "-c")}
LONGEST_S, DEFAULT_S = 300, 30
MOST_CODE_BYTES = 100_000
"""The kernel takes hardly more as one argument."""
MOST_OUTPUT_BYTES = 1024 * 1024
MOST_AT_ONCE = 16
"""Each holds one of web's threads until its code ends."""
_TEMPLATES = {"process": "base-process"}
_DEFAULT_TEMPLATE = "base"
TOOL = "exec_code"
_NAMED_RULES = 5
_LONGEST_REASON = 1000
_places = threading.BoundedSemaphore(MOST_AT_ONCE)


class CodeRefused(Forbidden):
    """The code's score meets the tenant's threshold."""

    code = "code_refused"
    title = "This tenant does not run code of such a risk"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants to be run. `code` and `env` reach neither the database nor a log."""

    code: str
    language: str = "python"
    tier: str = ""
    timeout_s: int = DEFAULT_S
    template: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    network: str = ISOLATED
    idempotency_key: str | None = None
    request_digest: str = ""

    def __repr__(self) -> str:
        return f"Wish({self.language!r}, timeout_s={self.timeout_s})"

    def arguments(self) -> dict[str, object]:
        """Return what the audit hashes."""
        return {"code": self.code, "language": self.language, "env": dict(self.env), "network": self.network}


def execute(*, actor: Actor, wish: Wish) -> Execution:
    """Run code and return its row: completed, timed out with what there is, or failed with the reason.

    Raises Forbidden for who may not run code and CodeRefused for code that the tenant refuses, InvalidInput, NotFound
    (template), TierUnavailable, QuotaExceeded, RateLimited, and Unavailable when too many run; afterwards nothing is
    left. With an idempotency key a repeated request gets the first one's row.
    """
    policy.require(actor, actions.WRITE)
    policy.require(actor, actions.USE)
    if actor.tenant_id is None or not access.may_execute(actor):
        raise Forbidden("Only an API key of a tenant runs code.")
    owner = UUID(actor.tenant_id)
    first = _first_result(actor, wish)
    if first is not None:
        return first
    _check(owner, wish)
    if not _places.acquire(blocking=False):
        raise Unavailable(f"{MOST_AT_ONCE} executions run already; try again shortly.", retry_after=2)
    try:
        return _judge_and_run(actor, owner, wish)
    finally:
        _places.release()


def _first_result(actor: Actor, wish: Wish) -> Execution | None:
    if wish.idempotency_key is None:
        return None
    return executionrows.first_result(actor, wish.idempotency_key, wish.request_digest)


def _check(owner: UUID, wish: Wish) -> None:
    if "\x00" in wish.code:
        raise InvalidInput("code must not contain NUL characters.", field="code")
    try:
        size = len(wish.code.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput("code is not valid Unicode.", field="code") from error
    if size > MOST_CODE_BYTES:
        raise InvalidInput(f"code must not have more than {MOST_CODE_BYTES} bytes.", field="code")
    longest_s = max(0, selectors.longest_lifetime_s(owner) - WRAP_UP_S)
    if wish.timeout_s > longest_s:
        raise InvalidInput(
            f"timeout_s cannot be greater than {longest_s}, by the tenant's longest lifetime.",
            field="timeout_s",
            maximum=longest_s,
        )
    if wish.network != ISOLATED:
        networks.plan(owner, networks.Wish(policy=wish.network))


def _judge_and_run(actor: Actor, owner: UUID, wish: Wish) -> Execution:
    assessment = assessing.assess(wish.code, wish.language)
    thresholds = RiskPolicy.objects.filter(pk=owner).first() or RiskPolicy()
    if thresholds.refuse_at is not None:
        counted = _counted(owner, assessment)
        if counted.score >= thresholds.refuse_at:
            raise _refused(actor, wish, counted, thresholds.refuse_at)
    row = _planned(actor, owner, wish, assessment, thresholds.unassessable_tier)
    try:
        executionrows.begin(actor, row, wish.arguments())
    except IntegrityError:
        # Only the idempotency key can collide: the other of two at the same moment was first.
        first = _first_result(actor, wish)
        if first is None:
            raise
        return first
    _carry_out(actor, wish, row)
    return row


def _counted(owner: UUID, assessment: Assessment) -> Assessment:
    """Return what counts against the thresholds: without the rules that the tenant does not want to hear of for now."""
    muted = set(RiskSuppression.objects.filter(tenant_id=owner, until__gt=clock.now()).values_list("rule", flat=True))
    heard = [finding for finding in assessment.findings if finding.rule not in muted]
    return combine(assessment.language, heard, ms=assessment.ms)


def _refused(actor: Actor, wish: Wish, counted: Assessment, threshold: int) -> CodeRefused:
    rules = _worst_rules(counted)
    _record_refusal(actor, wish, counted, "score", threshold=threshold)
    return CodeRefused(
        f"The code scores {counted.score} by {', '.join(rules)}, and the tenant refuses from {threshold} on.",
        score=counted.score,
        threshold=threshold,
        rules=rules,
    )


def _worst_rules(assessment: Assessment) -> list[str]:
    worst = sorted(assessment.findings, key=lambda finding: -finding.weight)
    return list(dict.fromkeys(finding.rule for finding in worst))[:_NAMED_RULES]


def _record_refusal(actor: Actor, wish: Wish, assessment: Assessment, reason: str, **details: object) -> None:
    """Record what was asked for and not run: no command of a sandbox will tell of it."""
    with turns.write():
        recording.record(
            "execution.refused",
            actor=actor,
            object_type=OBJECT,
            object_id=ids.new_event_id(),
            tenant_id=actor.tenant_id,
            outcome="refused",
            reason=reason,
            tool_name=TOOL,
            arguments=wish.arguments(),
            assessment=assessment,
            seed=assessing.seed(wish.code),
            details={"language": wish.language, "rules": _worst_rules(assessment), **details},
        )


def _planned(actor: Actor, owner: UUID, wish: Wish, assessment: Assessment, unassessable_tier: str) -> Execution:
    """Return the unsaved row, with the tier that everybody's demands lead to."""
    floor = _floor(assessment, unassessable_tier)
    demands = floors.Demands(
        floor=floor,
        floor_reason=assessment.floor_reason,
        tenant=quota.resolve_resources(owner).min_tier,
        template=selectors.template_for(actor, wish.template).tier if wish.template else "",
        asked=wish.tier,
    )
    offered = node_client.local_node().capabilities()["tiers"]
    try:
        choice = floors.choose(demands, offered)
    except TierUnavailable as refusal:
        _record_refusal(actor, wish, assessment, refusal.code, tier=refusal.details["tier"])
        raise
    return Execution(
        tenant_id=owner,
        language=wish.language,
        template_name=wish.template or _TEMPLATES.get(choice.tier, _DEFAULT_TEMPLATE),
        tier=choice.tier,
        requested_tier=wish.tier,
        floor=floor,
        floor_reason=cleaning.text(choice.reason, _LONGEST_REASON),
        risk=assessing.described(assessment, wish.code),
        timeout_s=wish.timeout_s,
        created_by=actor.id,
        idempotency_key=wish.idempotency_key,
        request_digest=wish.request_digest,
    )


def _floor(assessment: Assessment, unassessable_tier: str) -> str:
    """Return the least tier of code. What nobody could judge needs what its tenant says."""
    levels = [assessment.tier] + ([unassessable_tier] if assessment.unassessable else [])
    return strongest(*(tier for tier in map(named, levels) if tier is not None))


def _carry_out(actor: Actor, wish: Wish, row: Execution) -> None:
    try:
        granted = actions.create_sandbox(
            actor=actor,
            template=row.template_name,
            tier=row.tier,
            timeout_s=wish.timeout_s + WRAP_UP_S,
            metadata={OBJECT: row.pk},
            env=wish.env,
            ingress=Ingress(public=False),
            network=networks.Wish(policy=wish.network),
            idempotency_key=executionrows.sandbox_key(row),
        )
    except GatehouseError as error:
        # The same request may be tried again with the same key.
        executionrows.end(actor, row, ExecutionState.FAILED, reason=error.message, idempotency_key=None)
        raise
    begun = time.monotonic()
    try:
        if not executionrows.run_in(row, granted.sandbox.pk):
            return
        ended = _run(wish, granted)
    finally:
        executionrows.drop_sandbox(actor, granted.sandbox.pk)
    ended["duration_ms"] = round((time.monotonic() - begun) * 1000)
    executionrows.end(actor, row, **ended)


def _run(wish: Wish, granted: Access) -> dict[str, Any]:
    """Run the code and return how its row ends."""
    command = (*INTERPRETERS[wish.language], wish.code)
    try:
        output = inside.run(granted, command, timeout_s=wish.timeout_s, most_bytes=MOST_OUTPUT_BYTES)
    except inside.NotRun as error:
        return {"state": ExecutionState.FAILED, "reason": error.message}
    return {
        "state": ExecutionState.TIMED_OUT if output.timed_out else ExecutionState.COMPLETED,
        "stdout": _text(output.stdout),
        "stderr": _text(output.stderr),
        "truncated": output.truncated,
        "output_until": clock.now() + OUTPUT_KEPT,
        "exit_code": output.exit_code,
    }


def _text(data: bytes | bytearray) -> str:
    """Return output as text that every database takes."""
    return data.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
