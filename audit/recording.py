"""The only way to write audit rows. Call `record` inside the transaction of what it describes."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction

from audit import insertion, registry
from audit.models import Event, Outcome, Phase
from corekit import clock, ids, tokens
from corekit.fingerprint import arguments_hash, arguments_shape
from corekit.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from corekit.actor import Actor

logger = structlog.get_logger("gatehouse.audit")

PLATFORM = "platform"
MAX_DETAILS_BYTES = 16_384
_MAX_REASONS = 20
_MAX_SQL_INTEGER = 2**31 - 1
_MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999
_RAW_SHOWN = 2000


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
    event_id: str | None = None,
    at: datetime | None = None,
) -> Event:
    """Write who did what to which object, from where, and how it ended.

    Arguments are kept as a keyed hash and a shape only; `details` are kept as they are, without secrets, and may
    hold only the names that the code declares. `risk` is a score up to 100 and what it is for. Raises
    UnknownCodeError: that is a mistake of the caller.
    """
    shown = dict(details or {})
    registry.check_details(code, shown)
    event = Event(
        id=event_id or ids.new_event_id(),
        tenant_id=_uuid(tenant_id),
        code=code,
        at=at or clock.now(),
        actor_kind=actor.kind,
        actor_id=_text(actor.id, 64),
        actor_name=_text(actor.name, 200),
        origin=_address(actor.origin),
        request_id=_text(actor.request_id, 64),
        object_type=_text(object_type, 32),
        object_id=_text(object_id, 128),
        outcome=Outcome(outcome),
        details=_details(shown),
    )
    if risk is not None:
        event.risk_score, event.risk_reasons = risk[0], [_text(risk[1], 200)]
    if arguments is not None:
        event.args_hash = arguments_hash(_key(tenant_id), arguments)
        event.args_shape = _details(arguments_shape(arguments))
    event.save()
    return event


def record_node_event(event: Mapping[str, Any], *, tenant_id: str | UUID) -> bool:
    """Write one event of a node's spool; return False when its id is already there."""
    return record_node_events([(event, tenant_id)])[0]


def record_node_events(events: Sequence[tuple[Mapping[str, Any], str | UUID | None]]) -> list[bool]:
    """Write events of a node's spool, each with the tenant that our own rows name; say which ones were new.

    The spool is delivered at least once, so known ids are skipped. An event that can't be read becomes a row
    `spool.malformed`, because refusing it would stop the spool behind it.
    """
    rows = [_from_node(event, tenant_id) for event, tenant_id in events]
    with transaction.atomic():
        seen = set(Event.objects.filter(id__in={row.id for row in rows}).values_list("id", flat=True))
        fresh: list[bool] = []
        for row in rows:
            fresh.append(row.id not in seen)
            seen.add(row.id)
        added = [row for row, is_new in zip(rows, fresh, strict=True) if is_new]
        insertion.insert(added)
        transaction.on_commit(lambda: _log_executions(added), robust=True)
    return fresh


def _from_node(event: Mapping[str, Any], tenant_id: str | UUID | None) -> Event:
    try:
        return _read_node_event(event, tenant_id)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        logger.error("node_event_malformed", reason=f"{type(error).__name__}: {error}")
        return _malformed(event, tenant_id)


def _read_node_event(event: Mapping[str, Any], tenant_id: str | UUID | None) -> Event:
    if not ids.is_event_id(event["id"]):
        raise ValueError("the id is not 32 hex characters")
    key_id, node_id = event.get("key_id"), _text(event["node_id"], 64)
    duration = event.get("duration_ms")
    return Event(
        id=event["id"],
        tenant_id=_uuid(tenant_id),
        code=_node_code(event["code"]),
        at=clock.from_ms(_required(event["at"], _MAX_TIME_MS)),
        phase=Phase(event.get("phase") or Phase.FACT),
        ref=_text(event.get("ref"), 32),
        actor_kind="api_key" if key_id else "node",
        actor_id=_text(key_id or node_id, 64),
        actor_name=_text(key_id or node_id, 200),
        origin=_address(event.get("origin")),
        request_id=_text(event.get("request_id"), 64),
        object_type="sandbox" if event.get("sandbox") else "node",
        object_id=_text(event.get("sandbox") or node_id, 128),
        generation=_optional(event.get("generation"), _MAX_SQL_INTEGER),
        node_id=node_id,
        outcome=Outcome(event["outcome"]) if event.get("outcome") else "",
        tool_name=_text(event.get("tool_name"), 64),
        args_hash=_text(event.get("args_hash"), 64),
        args_shape=_details(dict(event.get("args_shape") or {})),
        risk_score=_optional(event.get("risk_score"), 100),
        risk_reasons=[_text(reason, 200) for reason in (event.get("risk_reasons") or [])[:_MAX_REASONS]],
        duration_ms=None if duration is None else float(duration),
        details=_details(dict(event.get("details") or {})),
    )


def _malformed(event: Mapping[str, Any], tenant_id: str | UUID | None) -> Event:
    raw = json.dumps(event, sort_keys=True, default=str)
    # The same line must get the same id, or each delivery would add a row.
    digest = hashlib.sha256(raw.encode("utf-8", "replace")).hexdigest()[:32]
    return Event(
        id=digest,
        tenant_id=_uuid(tenant_id),
        code="spool.malformed",
        at=clock.now(),
        actor_kind="node",
        actor_id=_text(event.get("node_id"), 64) or "unknown",
        actor_name=_text(event.get("node_id"), 200) or "unknown",
        object_type="sandbox" if event.get("sandbox") else "node",
        object_id=_text(event.get("sandbox") or event.get("node_id"), 128) or "unknown",
        outcome=Outcome.ERROR,
        details=_details({"event": raw[:_RAW_SHOWN]}),
    )


def _log_executions(events: Iterable[Event]) -> None:
    """Write the log line `tool_execution` for every finished act of the data plane."""
    for event in events:
        if event.tool_name and event.phase != Phase.INTENT:
            logger.info(
                "tool_execution",
                sandbox_id=event.object_id,
                tool_name=event.tool_name,
                args_hash=event.args_hash,
                result_status=str(event.outcome),
                duration_ms=event.duration_ms,
                risk_score=event.risk_score,
                at=clock.to_rfc3339(event.at),
            )


def _node_code(code: object) -> str:
    if not isinstance(code, str) or not code or len(code) > 64:
        raise ValueError("the code is not a short text")
    if not registry.known(code):
        # A newer node may know more than we do; its events are kept all the same.
        logger.warning("node_event_code_unknown", code=code)
    return code


def _key(tenant_id: str | UUID | None) -> bytes:
    owner = _uuid(tenant_id)
    return tokens.audit_key(settings.GATEHOUSE.seed(), owner.hex if owner else PLATFORM)


def _uuid(tenant_id: str | UUID | None) -> UUID | None:
    return UUID(tenant_id) if isinstance(tenant_id, str) else tenant_id


def _address(text: object) -> str | None:
    try:
        return str(ipaddress.ip_address(str(text))) if text else None
    except ValueError:
        return None


def _optional(value: object, maximum: int) -> int | None:
    return None if value is None else _required(value, maximum)


def _required(value: object, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise ValueError(f"{value!r} is not a whole number from 0 to {maximum}")
    return value


def _text(value: object, length: int) -> str:
    """Cut to what a column holds, and free from what a database refuses."""
    text = "" if value is None else str(value)
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()[:length]


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _text(value, MAX_DETAILS_BYTES)
    if isinstance(value, dict):
        return {_text(name, 200): _clean(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    return value


def _details(value: Mapping[str, object]) -> dict[str, object]:
    cleaned = _clean(redact(value))
    assert isinstance(cleaned, dict)  # noqa: S101  (a mapping stays one)
    if len(json.dumps(cleaned, default=str)) > MAX_DETAILS_BYTES:
        return {"truncated": True}
    return cleaned
