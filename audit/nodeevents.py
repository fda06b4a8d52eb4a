"""Read what a node's spool delivers into events. The node is ours, but what it passes on comes from clients."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import structlog

from audit import insertion, registry
from audit.cleaning import (
    address,
    details,
    duration,
    findings,
    optional_whole,
    reasons,
    seed,
    text,
    uuid,
    whole,
)
from audit.models import Band, Decision, Event, Outcome, Phase
from audit.risk.findings import TIERS, band_of
from corekit import clock, ids

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

logger = structlog.get_logger("gatehouse.audit")

_MAX_SQL_INTEGER = 2**31 - 1
_MAX_BIG_INTEGER = 2**63 - 1
_MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999
_RAW_SHOWN = 2000
_FLOWS = ("egress.", "secret.exfil_attempt")


def read(event: Mapping[str, Any], tenant_id: str | UUID | None) -> Event:
    """Return a node's event as a row of the tenant that our own rows name; one that can't be read as malformed."""
    try:
        return _read(event, tenant_id)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        logger.error("node_event_malformed", reason=f"{type(error).__name__}: {error}")
        return _malformed(event, tenant_id)


def _read(event: Mapping[str, Any], tenant_id: str | UUID | None) -> Event:
    if not ids.is_event_id(event["id"]):
        raise ValueError("the id is not 32 hex characters")
    key_id, node_id, sandbox = event.get("key_id"), text(event["node_id"], 64), event.get("sandbox")
    outcome = Outcome(event["outcome"]) if event.get("outcome") else ""
    shown = details(dict(event.get("details") or {}))
    return insertion.new_event(
        id=event["id"],
        tenant_id=uuid(tenant_id),
        code=_code(event["code"]),
        at=clock.from_ms(whole(event["at"], _MAX_TIME_MS)),
        received_at=clock.now(),
        phase=Phase(event.get("phase") or Phase.FACT),
        ref=text(event.get("ref"), 32),
        producer=f"node:{node_id}",
        producer_seq=optional_whole(event.get("seq"), _MAX_BIG_INTEGER),
        actor_kind="api_key" if key_id else "node",
        actor_id=text(key_id or node_id, 64),
        actor_name=text(key_id or node_id, 200),
        actor_auth="access_token" if key_id else "",
        token_id=text(key_id, 64),
        origin=address(event.get("origin")),
        user_agent=text(event.get("user_agent"), 200),
        request_id=text(event.get("request_id"), 64),
        trace_id=text(event.get("trace_id"), 32),
        span_id=text(event.get("span_id"), 16),
        object_type="sandbox" if sandbox else "node",
        object_id=text(sandbox or node_id, 128),
        sandbox_id=text(sandbox, 64),
        generation=optional_whole(event.get("generation"), _MAX_SQL_INTEGER),
        tier=text(event.get("tier"), 16),
        node_id=node_id,
        host=text(_of_flow(event, shown, "host"), 255),
        policy_version=text(_of_flow(event, shown, "policy_version"), 64),
        outcome=outcome,
        decision=_decision(event, outcome),
        status=optional_whole(event.get("status"), _MAX_SQL_INTEGER),
        reason=text(event.get("reason") or shown.get("reason"), 200),
        tool_name=text(event.get("tool_name"), 64),
        args_hash=text(event.get("args_hash"), 64),
        args_key_id=text(event.get("args_key_id"), 16),
        args_size=optional_whole(event.get("args_size"), _MAX_BIG_INTEGER),
        args_shape=details(dict(event.get("args_shape") or {})),
        duration_ms=duration(event.get("duration_ms")),
        context=_context(event),
        details=shown,
        **_risk(event),
    )


def _risk(event: Mapping[str, Any]) -> dict[str, Any]:
    score = optional_whole(event.get("risk_score"), 100)
    tier = text(event.get("risk_tier"), 2)
    if tier and tier not in TIERS:
        raise ValueError(f"{tier!r} is no tier")
    return {
        "risk_score": score,
        # Older nodes send the score alone.
        "risk_band": "" if score is None else Band(event.get("risk_band") or band_of(score)),
        "risk_tier": tier,
        "risk_ruleset": text(event.get("risk_ruleset"), 40),
        "risk_reasons": reasons(event.get("risk_reasons")),
        "risk_findings": findings(event.get("risk_findings")),
        "risk_seed": seed(event.get("risk_seed")),
    }


def _of_flow(event: Mapping[str, Any], shown: Mapping[str, object], name: str) -> object:
    """Return a detail of the way out that has a column of its own, to be looked for by it."""
    return shown.get(name) if str(event["code"]).startswith(_FLOWS) else None


def _decision(event: Mapping[str, Any], outcome: str) -> str:
    if event.get("decision"):
        return Decision(event["decision"])
    return Decision.DENY if outcome == Outcome.REFUSED else ""


def _context(event: Mapping[str, Any]) -> dict[str, object]:
    """Return the number that the gateway gave its line: a gap in them is a line that the node never got."""
    number = optional_whole(event.get("gateway_seq"), _MAX_BIG_INTEGER)
    if number is None:
        return {}
    return {"gateway": {"id": text(event.get("gateway_id"), 32), "seq": number}}


def _malformed(event: Mapping[str, Any], tenant_id: str | UUID | None) -> Event:
    raw = json.dumps(event, sort_keys=True, default=str)
    # The same line must get the same id, or each delivery would add a row.
    digest = hashlib.sha256(raw.encode("utf-8", "replace")).hexdigest()[:32]
    node_id = text(event.get("node_id"), 64) or "unknown"
    return Event(
        id=digest,
        tenant_id=uuid(tenant_id),
        code="spool.malformed",
        at=clock.now(),
        received_at=clock.now(),
        producer=f"node:{node_id}",
        producer_seq=_number_in_spool(event.get("seq")),
        actor_kind="node",
        actor_id=node_id,
        actor_name=node_id,
        object_type="sandbox" if event.get("sandbox") else "node",
        object_id=text(event.get("sandbox") or event.get("node_id"), 128) or "unknown",
        sandbox_id=text(event.get("sandbox"), 64),
        outcome=Outcome.ERROR,
        details=details({"event": raw[:_RAW_SHOWN]}),
    )


def _number_in_spool(seq: object) -> int | None:
    try:
        return optional_whole(seq, _MAX_BIG_INTEGER)
    except ValueError:
        return None


def _code(code: object) -> str:
    if not isinstance(code, str) or not code or len(code) > 64:
        raise ValueError("the code is not a short text")
    if not registry.known(code):
        # A newer node may know more than we do; its events are kept all the same.
        logger.warning("node_event_code_unknown", code=code)
    return code
