"""What the E2B clients send, read into checked values."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from corekit import clock
from corekit.errors import InvalidInput, NotYetAvailable
from sandboxes.e2b import fields, outbound
from sandboxes.launch import Ingress
from sandboxes.logs import LEVELS, MAX_ENTRIES, LogQuery
from sandboxes.selectors import MAX_PAGE, ListQuery, decode_page_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http import QueryDict

    from sandboxes.networks import Wish

DEFAULT_TIMEOUT_V1_S = 15
DEFAULT_TIMEOUT_V2_S = 300
SHORTEST_REFRESH_S = 15
MAX_METRIC_IDS = 100
MAX_SEARCH = 256
_LAST_MS = 253_402_300_799_999  # the end of the year 9999
_IDEMPOTENCY_KEY = re.compile(r"[a-z0-9-]{1,255}")
_BLANK_OFFSET = re.compile(r"(?<=T)(.*) (?=\d\d:\d\d$)")
_STATES = frozenset({"running", "paused"})
_INGRESS = frozenset({"allowPublicTraffic", "maskRequestHost", "httpsPorts"})
_FOR_LIFE = _INGRESS | {"iam"}
_KNOWN = _INGRESS | outbound.FIELDS


@dataclass(frozen=True, slots=True)
class CreateBody:
    """A create request. `env` is secret: it is handed to the node and nowhere else."""

    template: str
    timeout_s: int
    metadata: Mapping[str, str]
    env: Mapping[str, str]
    auto_pause: bool
    auto_resume: bool
    ingress: Ingress
    network: Wish

    def __repr__(self) -> str:
        return f"CreateBody({self.template!r}, timeout_s={self.timeout_s})"


def create_body(data: object, *, default_timeout_s: int) -> CreateBody:
    """Read the body of a create call. What a later version brings is refused by name, never ignored."""
    body = fields.as_object(data)
    network = fields.optional_object(body, "network")
    parsed = CreateBody(
        template=fields.name(body, "templateID"),
        timeout_s=fields.timeout(body, default=default_timeout_s),
        metadata=fields.metadata(body),
        env=fields.environment(body),
        auto_pause=_auto_pause(body),
        auto_resume=_auto_resume(body),
        ingress=_ingress(network),
        network=outbound.wish(network, body, inside="network"),
    )
    fields.boolean(body, "secure", default=None)
    fields.refuse_unless_empty(body, "mcp", dict)
    fields.refuse_unless_empty(body, "volumeMounts", list)
    return parsed


def _auto_pause(body: Mapping[str, object]) -> bool:
    pauses = fields.boolean(body, "autoPause", default=False)
    if fields.boolean(body, "autoPauseMemory", default=True):
        return pauses
    if not pauses:
        raise InvalidInput("autoPauseMemory needs autoPause.", field="autoPauseMemory")
    if _auto_resume(body):
        raise InvalidInput("autoPauseMemory: false and autoResume exclude each other.", field="autoPauseMemory")
    raise NotYetAvailable("This version pauses with memory only.", field="autoPauseMemory")


def _auto_resume(body: Mapping[str, object]) -> bool:
    return fields.boolean(fields.optional_object(body, "autoResume"), "enabled", default=False, inside="autoResume")


def _ingress(network: Mapping[str, object]) -> Ingress:
    """Read how requests come in. What nobody knows is refused by name, unless it asks for nothing."""
    for key, value in network.items():
        if key not in _KNOWN and value is not None and value != [] and value != {}:
            label = f"network.{key[:64]}"
            raise NotYetAvailable(f"This version does not offer {label} yet.", field=label)
    return Ingress(
        public=fields.boolean(network, "allowPublicTraffic", default=True, inside="network"),
        mask_host=fields.mask_host(network, "maskRequestHost", inside="network"),
        https_ports=fields.ports(network, "httpsPorts", inside="network"),
    )


def idempotency_key(header: str | None) -> str | None:
    """Return the Idempotency-Key header, checked; None without one."""
    if header is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(header):
        raise InvalidInput("Idempotency-Key must be 1 to 255 of a-z, 0-9 and -.", field="Idempotency-Key")
    return header


def digest(data: object) -> str:
    """Return what tells two request bodies apart without keeping them."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def connect_body(data: object, *, default_timeout_s: int | None) -> int:
    """Return the lifetime that a connect call asks for. None makes it required, as in version 1."""
    body = fields.as_object(data)
    _require_memory(body)
    return fields.timeout(body, default=default_timeout_s)


def resume_body(data: object) -> tuple[int, bool]:
    """Return the lifetime that a resume call of old clients asks for, and whether it asks for autoPause."""
    body = fields.as_object(data)
    pauses = fields.boolean(body, "autoPause", default=False)
    return connect_body(body, default_timeout_s=DEFAULT_TIMEOUT_V1_S), pauses


def pause_body(data: object) -> None:
    """Check the body of a pause call. Nobody has to ask the guest's health: it is frozen as it is."""
    body = fields.as_object(data)
    _require_memory(body)
    fields.boolean(body, "requireHealthyGuest", default=None)


def network_body(data: object) -> Wish:
    """Return what a network change asks for: all of it anew. How requests come in is said once, at create."""
    body = fields.as_object(data)
    for key in body:
        if key in _FOR_LIFE:
            raise InvalidInput(f"{key} can't be changed.", field=key)
    return outbound.wish(body, body)


def _require_memory(body: Mapping[str, object]) -> None:
    if not fields.boolean(body, "memory", default=True):
        raise NotYetAvailable("This version pauses and resumes with memory only.", field="memory")


def timeout_body(data: object) -> tuple[int, bool]:
    """Return the new lifetime in seconds, 0 ending the sandbox now, and whether it may only get longer."""
    body = fields.as_object(data)
    return fields.integer(body, "timeout", default=None, minimum=0), fields.boolean(body, "extendOnly", default=False)


def refresh_body(data: object) -> int:
    """Return the seconds for which a sandbox must at least go on."""
    body = fields.as_object(data)
    value = 0 if body.get("duration") is None else fields.integer(body, "duration", default=0, minimum=0)
    return max(SHORTEST_REFRESH_S, value)


def list_query(params: QueryDict, *, max_page: int = MAX_PAGE, only_running: bool = False) -> ListQuery:
    """Read the filters of a list call."""
    states = _states(params)
    ascending = _one_of(params, "order", ("desc", "asc")) == "asc"
    token = _text(params, "nextToken")
    return ListQuery(
        metadata=metadata_filter(_text(params, "metadata") or ""),
        template=_template_filter(params),
        started_after=_time(params, "startedAfter"),
        ascending=ascending,
        paused=False if only_running else _paused_filter(states),
        limit=_number(params, "limit", default=max_page, minimum=1, maximum=max_page),
        after=decode_page_token(token, ascending=ascending) if token else None,
    )


def metadata_filter(text: str) -> dict[str, str]:
    """Return the pairs of a metadata filter. The clients encode names and values twice within the query."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=fields.MAX_METADATA_PAIRS)
    except ValueError as error:
        raise InvalidInput("metadata has too many pairs.", field="metadata") from error
    return {unquote(key): unquote(value) for key, value in pairs}


def metrics_window(params: QueryDict) -> tuple[int, int]:
    """Return the wanted window in milliseconds since 1970, all of its last second included."""
    latest = _LAST_MS // 1000
    start = _number(params, "start", default=0, minimum=0, maximum=latest)
    end = _number(params, "end", default=latest, minimum=0, maximum=latest)
    if end < start:
        raise InvalidInput("end must not be before start.", field="end")
    return start * 1000, end * 1000 + 999


def metric_ids(params: QueryDict) -> list[str]:
    """Return the ids of a metrics call for several sandboxes, each once."""
    named = [part.strip() for text in params.getlist("sandbox_ids") for part in text.split(",") if part.strip()]
    found = list(dict.fromkeys(named))
    if not found or len(found) > MAX_METRIC_IDS:
        raise InvalidInput(f"sandbox_ids must name 1 to {MAX_METRIC_IDS} sandboxes.", field="sandbox_ids")
    return found


def logs_query_v1(params: QueryDict) -> LogQuery:
    """Read which log entries a call of version 1 wants: from a time on."""
    return LogQuery(since=_moment(params, "start"), limit=_log_limit(params))


def logs_query_v2(params: QueryDict) -> LogQuery:
    """Read which log entries a call of version 2 wants."""
    return LogQuery(
        since=_moment(params, "cursor"),
        backward=_one_of(params, "direction", ("forward", "backward")) == "backward",
        limit=_log_limit(params),
        level=_one_of(params, "level", LEVELS),
        search=(_text(params, "search") or "")[:MAX_SEARCH],
    )


def _log_limit(params: QueryDict) -> int:
    return _number(params, "limit", default=MAX_ENTRIES, minimum=0, maximum=MAX_ENTRIES)


def _moment(params: QueryDict, field: str) -> datetime | None:
    value = _number(params, field, default=-1, minimum=0, maximum=_LAST_MS)
    return None if value < 0 else clock.from_ms(value)


def _states(params: QueryDict) -> set[str]:
    states = {part for text in params.getlist("state") for part in text.split(",") if part}
    if states - _STATES:
        raise InvalidInput("state must be running, paused or both.", field="state")
    return states


def _paused_filter(states: set[str]) -> bool | None:
    return None if len(states) != 1 else "paused" in states


def _template_filter(params: QueryDict) -> str | None:
    value = _text(params, "template")
    if value and ":" in value:
        name, _, tag = value.partition(":")
        raise InvalidInput(f"template must be given without a tag, not {name[:64]}:{tag[:64]}.", field="template")
    return value or None


def _text(params: QueryDict, field: str) -> str | None:
    value = params.get(field)
    if value is None:
        return None
    text = str(value)
    if "\x00" in text:
        raise InvalidInput(f"{field} contains a NUL character.", field=field)
    return text


def _one_of(params: QueryDict, field: str, allowed: tuple[str, ...]) -> str:
    value = _text(params, field) or allowed[0]
    if value not in allowed:
        raise InvalidInput(f"{field} must be {' or '.join(allowed)}.", field=field)
    return value


def _number(params: QueryDict, field: str, *, default: int, minimum: int, maximum: int) -> int:
    value = _text(params, field)
    if value is None or value == "":
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 20 and minimum <= int(value) <= maximum):
        raise InvalidInput(f"{field} must be a whole number from {minimum} to {maximum}.", field=field)
    return int(value)


def _time(params: QueryDict, field: str) -> datetime | None:
    value = _text(params, field)
    if not value:
        return None
    try:
        # The plus sign of an offset that was not percent-encoded arrives as a blank.
        moment = datetime.fromisoformat(_BLANK_OFFSET.sub(r"\1+", value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{field} must be an ISO 8601 time.", field=field) from error
