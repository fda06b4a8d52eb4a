"""The one text of an event that its hash is taken over: RFC 8785's form of one nested document.

Rows go past the ORM, because sealing and verification read millions of them: `body_of` takes the columns as text, as
`select` asks both databases for them. The same event gives the same bytes whichever database kept it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import operator
import re
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

import rfc8785
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from audit.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Writer = Callable[[Any], str]

DOMAIN = b"gatehouse-audit-v1"
VERSION = 1

# Column → its name in the document. A point leads into an object; every column of an event is here.
NAMES = {
    "id": "id",
    "tenant_id": "tenant",
    "code": "code",
    "at": "ts",
    "received_at": "recv_ts",
    "phase": "phase",
    "ref": "ref",
    "producer": "producer.id",
    "producer_seq": "producer.seq",
    "actor_kind": "actor.type",
    "actor_id": "actor.id",
    "actor_name": "actor.name",
    "actor_auth": "actor.auth",
    "on_behalf_of": "actor.on_behalf_of",
    "token_id": "actor.token_id",
    "origin": "client.ip",
    "user_agent": "client.ua",
    "request_id": "trace.request_id",
    "trace_id": "trace.trace_id",
    "span_id": "trace.span_id",
    "run_id": "run",
    "object_type": "target.type",
    "object_id": "target.id",
    "object_name": "target.name",
    "sandbox_id": "sandbox.id",
    "generation": "sandbox.generation",
    "tier": "sandbox.tier",
    "policy_version": "sandbox.policy_version",
    "node_id": "node",
    "outcome": "outcome.status",
    "decision": "outcome.decision",
    "status": "outcome.code",
    "reason": "outcome.reason",
    "duration_ms": "dur_ms",
    "tool_name": "tool",
    "args_hash": "args.hmac",
    "args_key_id": "args.key_id",
    "args_size": "args.size",
    "args_shape": "args.shape",
    "risk_score": "risk.score",
    "risk_band": "risk.band",
    "risk_tier": "risk.tier",
    "risk_ruleset": "risk.ruleset",
    "risk_reasons": "risk.reasons",
    "risk_findings": "risk.findings",
    "risk_seed": "risk.seed",
    "host": "net.host",
    "context": "context",
    "details": "details",
}
FIELDS = Event._meta.concrete_fields
COLUMNS = tuple(str(field.column) for field in FIELDS)
UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError)
"""What a row raises that no event can have: somebody wrote it past the product."""

_MAX_EXACT = 2**53
_MAX_CACHED = 4096
_LONG_NUMBER = re.compile("[0-9]{16}")
_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9:]{8})(?:\.([0-9]{1,6}))?(?:\+00)?")
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode
_keep = DjangoJSONEncoder().encode
_EMPTY = {"{}": "", "[]": ""}
_cached = dict(_EMPTY)


def select(vendor: str, alias: str) -> str:
    """Return the columns of an event for a SELECT, in the order and as the texts that `body_of` takes."""
    written = _postgresql if vendor == "postgresql" else _sqlite
    return ", ".join(written(field, f"{alias}.{field.column}") for field in FIELDS)


def body_of(row: Sequence[Any]) -> bytes:
    """Return the canonical form of a row. What no event can have is named by the hash of its columns."""
    try:
        return _body(row)
    except UNREADABLE:
        columns = hashlib.sha256(json.dumps(list(row), default=repr).encode()).hexdigest()
        name = str(row[_ID]).encode("ascii", "backslashreplace").decode()
        return _dumps({"id": name, "unreadable": columns, "v": VERSION}).encode()


def body(event: Event) -> bytes:
    """Return the canonical form of an event."""
    return body_of([_column_text(field, getattr(event, field.attname)) for field in FIELDS])


def document(event: Event) -> dict[str, Any]:
    """Return the nested document whose canonical form is hashed. Empty values are left out."""
    found: dict[str, Any] = json.loads(body(event))
    return found


def encode(value: object) -> bytes:
    """Return RFC 8785's form of a value. Raises ValueError or TypeError for what has none."""
    return _canonical_json(_keep(value)).encode()


def chain_hash(chain: str, seq: int, previous: bytes, body: bytes) -> bytes:
    """Return the hash of one event in its chain: RFC 6962's leaf hash over domain, chain, number, hash before, body."""
    name = chain.encode()
    head = b"\x00" + DOMAIN + len(name).to_bytes(2, "big") + name + seq.to_bytes(8, "big")
    return hashlib.sha256(head + previous + body).digest()


def moment(at: datetime) -> str:
    """Return a time as documents hold it: RFC 3339 in UTC with six digits."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _body(row: Sequence[Any]) -> bytes:
    parts: list[str] = []
    inside = ""
    for value, (group, label, write) in zip(_in_order(row), _PLAN, strict=True):
        if not value and (value is None or value == ""):
            continue
        text = write(value)
        if not text:
            continue
        if group != inside:
            if inside:
                parts[-1] += "}"
            inside = group
            if group:
                label = f'"{group}":{{{label}'
        parts.append(label + text)
    if inside:
        parts[-1] += "}"
    return f'{{{",".join(parts)},"v":{VERSION}}}'.encode()


def _postgresql(field: models.Field[Any, Any], name: str) -> str:
    if isinstance(field, models.GenericIPAddressField):
        return f"host({name})"
    if isinstance(field, models.JSONField | models.UUIDField | models.DateTimeField):
        return f"{name}::text"
    return name


def _sqlite(field: models.Field[Any, Any], name: str) -> str:
    # The plus hides the column's type, by which Django's connection would parse the text.
    return f"+{name}" if isinstance(field, models.DateTimeField) else name


def _column_text(field: models.Field[Any, Any], value: Any) -> Any:
    if isinstance(field, models.JSONField):
        return _keep(value)
    if value is None:
        return None
    if isinstance(field, models.DateTimeField):
        return str(value.astimezone(UTC).replace(tzinfo=None))
    if isinstance(field, models.UUIDField):
        return value.hex
    return value


# --- one column: its text in the document. TypeError and ValueError for what no event can have.


def _text(value: Any) -> str:
    return encode_basestring(value)


def _integer(value: Any) -> str:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return str(value) if -_MAX_EXACT < value < _MAX_EXACT else _number(float(value))


def _number(value: Any) -> str:
    """Write a number as ECMAScript does; Python's own form differs for very small, very large and whole ones."""
    number = float(value)
    if number.is_integer() and abs(number) < _MAX_EXACT:
        return str(int(number))
    return repr(number) if _plain(number) else rfc8785.dumps(number).decode()


def _plain(number: float) -> bool:
    return 1e-4 <= abs(number) < 1e15


def _time(value: Any) -> str:
    found = _TIME.fullmatch(value)
    if found is None:
        raise ValueError("not a time")
    day, second, fraction = found.groups("")
    return f'"{day}T{second}.{fraction:0<6}Z"'


def _uuid(value: Any) -> str:
    return encode_basestring(value.replace("-", ""))


def _address(value: Any) -> str:
    # The databases write an IPv4 address within IPv6 differently.
    return encode_basestring(str(ipaddress.ip_address(value)) if value.startswith("::") else value)


def _json(value: Any) -> str:
    known = _cached.get(value)
    if known is None:
        known = _canonical_json(value)
        # Shapes and small objects come again and again.
        if len(value) < 200:
            if len(_cached) >= _MAX_CACHED:
                _cached.clear()
                _cached.update(_EMPTY)
            _cached[value] = known
    return known


class _NeedsRules(Exception):
    """A number that Python writes differently from ECMAScript."""


def _float(text: str) -> float | int:
    number = float(text)
    if number.is_integer() and abs(number) < _MAX_EXACT:
        return int(number)
    if _plain(number):
        return number
    raise _NeedsRules


def _large(text: str) -> float | int:
    number = int(text)
    # JSON's numbers are doubles to RFC 8785, and PostgreSQL writes large ones without an exponent.
    return number if abs(number) < _MAX_EXACT else float(number)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_easily = json.JSONDecoder(parse_float=_float, parse_constant=_no_constant).decode
_by_rules = json.JSONDecoder(parse_int=_large, parse_constant=_no_constant).decode


def _canonical_json(text: str) -> str:
    """Return the canonical form of JSON. Python's encoder is right unless numbers or names are unusual."""
    if not _LONG_NUMBER.search(text):
        try:
            fast = _dumps(_easily(text))
        except _NeedsRules:
            pass
        else:
            # Names are sorted by UTF-16, which only differs from their own order beyond the first plane.
            if fast.isascii() or not _BEYOND_BMP.search(fast):
                return fast
    return rfc8785.dumps(_by_rules(text)).decode()


_WRITERS: dict[type[models.Field[Any, Any]], Writer] = {
    models.CharField: _text,
    models.UUIDField: _uuid,
    models.DateTimeField: _time,
    models.GenericIPAddressField: _address,
    models.JSONField: _json,
    models.FloatField: _number,
    models.BigIntegerField: _integer,
    models.PositiveBigIntegerField: _integer,
    models.PositiveIntegerField: _integer,
    models.PositiveSmallIntegerField: _integer,
}
_ID = COLUMNS.index("id")

_PLACES = sorted(range(len(COLUMNS)), key=lambda at: NAMES[COLUMNS[at]].split("."))
_in_order = operator.itemgetter(*_PLACES)


def _step(at: int) -> tuple[str, str, Writer]:
    """Return the object that a column belongs to, what stands before its value, and how that is written."""
    group, _, name = NAMES[COLUMNS[at]].rpartition(".")
    label = '"alg":"hmac-sha256","hmac":' if name == "hmac" else f'"{name}":'
    return group, label, _WRITERS[type(FIELDS[at])]


_PLAN = [_step(at) for at in _PLACES]
