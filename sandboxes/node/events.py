"""What the node itself reports, and the strict form in which it takes events from gateway and egress."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from corekit import tracing
from corekit.clock import epoch_ms
from corekit.ids import new_event_id
from sandboxes.node.errors import BadRequest
from sandboxes.node.spec import matching

_ID = re.compile(r"[0-9a-f]{32}")
# What passes the gateway. Of starts, pauses and ends only the node itself can tell.
_CODE = re.compile(r"(?:code|command|file|port)(?:\.[a-z_]+){1,3}")
_EGRESS_CODE = re.compile(r"egress\.[a-z_]{1,32}|secret\.(?:exfil_attempt|reflected)")
# The same score as where the broker sees it. What else a flow shows is judged with those before it.
_SCORES = {"secret.reflected": 90}
_SANDBOX = re.compile(r"[a-z0-9]{1,64}")
_PHASES = ("intent", "result", "fact")
_OUTCOMES = (None, "ok", "error", "refused")
_BANDS = (None, "low", "medium", "high", "critical")
_TIERS = (None, "L0", "L1", "L2", "L3")
_DECISIONS = (None, "allow", "deny")
_TEXTS = {"ref": 32, "key_id": 16, "origin": 64, "request_id": 128, "tool_name": 64, "args_hash": 64}
# What gateways of before did not send; an event without these has no such field.
_LATER_TEXTS = {
    "args_key_id": 16,
    "user_agent": 200,
    "trace_id": 32,
    "span_id": 16,
    "reason": 200,
    "risk_ruleset": 40,
    "gateway_id": 32,
    # 16 KiB of arguments and the box around them, in base64.
    "args_copy": 24_576,
}
_LATER_NUMBERS = ("args_size", "status", "gateway_seq")
_LATER_CHOICES = {"risk_band": _BANDS, "risk_tier": _TIERS, "decision": _DECISIONS}
_ASKED_FOR = frozenset(
    {
        ("sandbox.started", None),
        ("sandbox.resumed", None),
        ("sandbox.paused", "requested"),
        ("sandbox.ended", "killed"),
        ("sandbox.ended", "start_failed"),
        ("sandbox.quarantined", None),
    }
)
_MAX_REASONS = 32
_MAX_FINDINGS = 20
_MAX_WHOLE = 2**53
_MAX_DURATION_MS = 2.0**53
_MAX_REASON_CHARS = 200
# Whoever reads the spool must be able to read it whole: JSON that is nested too deeply stops every reader.
_MAX_DEPTH = 16
# Egress tells of a flow in words and numbers, none of them long.
_DETAIL = re.compile(r"[a-z_]{1,32}")
_MAX_DETAILS = 32
_MAX_DETAIL_CHARS = 512


class Subject(Protocol):
    """Whom an event is about: a sandbox that runs, or one that has ended."""

    @property
    def id(self) -> str:
        """The sandbox's id."""

    @property
    def generation(self) -> int:
        """Its generation."""

    @property
    def tenant(self) -> str:
        """Its tenant."""

    @property
    def tier(self) -> str:
        """How it is isolated."""


@dataclass(frozen=True)
class Past:
    """The identity of a sandbox that has ended, as its last event keeps it."""

    id: str
    generation: int
    tenant: str
    tier: str = ""

    @classmethod
    def of(cls, event: dict[str, Any]) -> Past:
        """Read the identity from any event of that sandbox."""
        return cls(event["sandbox"], event["generation"], event["tenant"], str(event.get("tier") or ""))


def fact(code: str, spec: Subject, node_id: str, **details: Any) -> dict[str, Any]:
    """Return an event that the node saw with its own eyes."""
    trace = tracing.current() if _was_asked_for(code, details) else None
    return {
        "id": new_event_id(),
        "at": epoch_ms(),
        "node_id": node_id,
        "sandbox": spec.id,
        "generation": spec.generation,
        "tenant": spec.tenant,
        "tier": spec.tier,
        "code": code,
        "phase": "fact",
        "ref": None,
        "key_id": None,
        "origin": None,
        "request_id": trace.request_id if trace else None,
        "trace_id": trace.trace_id if trace else None,
        "span_id": trace.span_id if trace else None,
        "tool_name": None,
        "args_hash": None,
        "args_shape": None,
        "risk_score": None,
        "risk_reasons": [],
        "outcome": "ok",
        "duration_ms": None,
        "details": details,
    }


def _was_asked_for(code: str, details: dict[str, Any]) -> bool:
    """Say whether a request caused it. Timers and watchers live on in the context of the request that began them."""
    return (code, details.get("reason")) in _ASKED_FOR


def from_gateway(body: Any, spec: Subject, node_id: str) -> dict[str, Any]:
    """Return the gateway's event with the node's own time, name and tenant; BadRequest names the wrong field."""
    event = fact(matching(body, "code", _CODE), spec, node_id)
    event["id"] = matching(body, "id", _ID)
    for name, longest in _TEXTS.items():
        event[name] = _text(body, name, longest)
    event["phase"] = _one_of(body, "phase", _PHASES)
    event["outcome"] = _one_of(body, "outcome", _OUTCOMES)
    event["risk_score"] = _score(body)
    event["risk_reasons"] = _reasons(body)
    event["duration_ms"] = _duration(body)
    for name in ("args_shape", "details"):
        event[name] = _object(body, name)
    return event | _later(body)


def from_egress(body: Any, spec: Subject, node_id: str) -> dict[str, Any]:
    """Return egress's event with the node's own time, name and tenant; BadRequest names the wrong field."""
    if _one_of(body, "phase", ("fact",)) is None:
        raise BadRequest("phase is unknown.", field="phase")
    event = fact(matching(body, "code", _EGRESS_CODE), spec, node_id, **_flow(body))
    return event | {
        "id": matching(body, "id", _ID),
        "outcome": _one_of(body, "outcome", _OUTCOMES),
        "decision": _one_of(body, "decision", _DECISIONS),
        "reason": _text(body, "reason", _LATER_TEXTS["reason"]),
        "duration_ms": _duration(body),
        **({"risk_score": _SCORES[event["code"]], "risk_reasons": [event["code"]]} if event["code"] in _SCORES else {}),
    }


def _flow(body: dict[str, Any]) -> dict[str, Any]:
    details = body.get("details")
    if not isinstance(details, dict) or len(details) > _MAX_DETAILS:
        raise BadRequest(f"details must be an object of at most {_MAX_DETAILS} fields.", field="details")
    for name, value in details.items():
        if not _DETAIL.fullmatch(name) or not _is_short(value):
            raise BadRequest("details must have short names and short values.", field="details")
    return details


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_DETAIL_CHARS
    return value is None or isinstance(value, bool) or (type(value) in (int, float) and abs(value) <= _MAX_WHOLE)


def _later(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that an event may have or not."""
    found: dict[str, Any] = {name: _text(body, name, longest) for name, longest in _LATER_TEXTS.items() if name in body}
    found |= {name: _whole(body, name) for name in _LATER_NUMBERS if name in body}
    found |= {name: _one_of(body, name, allowed) for name, allowed in _LATER_CHOICES.items() if name in body}
    if "risk_findings" in body:
        found["risk_findings"] = _findings(body)
    if "risk_seed" in body:
        found["risk_seed"] = _object(body, "risk_seed")
    return found


def sandbox_of(body: Any) -> tuple[str, Any]:
    """Return which sandbox and generation an event is about."""
    if not isinstance(body, dict):
        raise BadRequest("An event must be a JSON object.", field="event")
    return matching(body, "sandbox", _SANDBOX), body.get("generation")


def _text(body: dict[str, Any], name: str, longest: int) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > longest):
        raise BadRequest(f"{name} must be a text of at most {longest} characters.", field=name)
    return value


def _one_of(body: dict[str, Any], name: str, allowed: tuple[str | None, ...]) -> str | None:
    value = body.get(name)
    if value not in allowed:
        raise BadRequest(f"{name} is unknown.", field=name)
    return value


def _score(body: dict[str, Any]) -> int | None:
    value = body.get("risk_score")
    if value is not None and (type(value) is not int or not 0 <= value <= 100):
        raise BadRequest("risk_score must be from 0 to 100.", field="risk_score")
    return value


def _reasons(body: dict[str, Any]) -> list[str]:
    value = body.get("risk_reasons") or []
    if not isinstance(value, list) or len(value) > _MAX_REASONS:
        raise BadRequest("risk_reasons must be a short list.", field="risk_reasons")
    return [str(reason)[:_MAX_REASON_CHARS] for reason in value]


def _findings(body: dict[str, Any]) -> list[dict[str, Any]]:
    value = body["risk_findings"] or []
    if not isinstance(value, list) or len(value) > _MAX_FINDINGS or not all(isinstance(one, dict) for one in value):
        raise BadRequest(f"risk_findings must be a list of at most {_MAX_FINDINGS} objects.", field="risk_findings")
    if not _is_shallow(value, _MAX_DEPTH):
        raise BadRequest(f"risk_findings must have at most {_MAX_DEPTH} levels.", field="risk_findings")
    return value


def _whole(body: dict[str, Any], name: str) -> int | None:
    value = body[name]
    if value is not None and (type(value) is not int or not 0 <= value <= _MAX_WHOLE):
        raise BadRequest(f"{name} must be a whole number.", field=name)
    return value


def _duration(body: dict[str, Any]) -> float | None:
    value = body.get("duration_ms")
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= _MAX_DURATION_MS):
        raise BadRequest("duration_ms must be a positive number.", field="duration_ms")
    return value


def _object(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = body.get(name)
    if value is not None and not (isinstance(value, dict) and _is_shallow(value, _MAX_DEPTH)):
        raise BadRequest(f"{name} must be an object of at most {_MAX_DEPTH} levels.", field=name)
    return value


def _is_shallow(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_is_shallow(inner, levels - 1) for inner in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_is_shallow(inner, levels - 1) for inner in value)
    return True
