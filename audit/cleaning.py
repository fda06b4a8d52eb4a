"""What an event may hold: values cut to their columns, free of secrets, and the same in every database and in RFC 8785.

Both databases and the canonical form must take what is recorded, so what one of them refuses is made harmless here:
NUL, halves of characters, numbers that are none or that JSON's readers would round.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder

from audit.risk.reporting import MAX_FINDINGS, columns
from corekit.redaction import redact

if TYPE_CHECKING:
    from audit.risk.findings import Assessment

MAX_DETAILS_BYTES = 16_384
MAX_REASONS = 20
_MAX_NAME = 200
_MAX_CHAIN = 8
# Ten names and values of a hundred characters are 12,000 bytes at most.
_FEW, _SHORT = 10, 100
_SCALAR = (int, float, type(None))
_LARGEST_EXACT = 2**53 - 1
_SPAN = ("line", "column", "end_line", "end_column", "offset", "end_offset")
_FINDING_TEXTS = {"rule": 64, "title": 200, "kind": 16, "tier": 2, "message": 500, "snippet": 120}
_other = DjangoJSONEncoder().default


def text(value: object, length: int) -> str:
    """Cut to what a column holds, and free from what a database refuses."""
    if value is None:
        return ""
    found = str(value)
    if found.isascii() and "\x00" not in found:
        return found[:length]
    return found.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()[:length]


def address(value: object) -> str | None:
    """Return an IP address, or None for what is none."""
    return _address(str(value)) if value else None


@functools.lru_cache(maxsize=4096)
def _address(value: str) -> str | None:
    # The same callers come again and again.
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return None


def uuid(tenant_id: str | UUID | None) -> UUID | None:
    """Return a tenant's id as the column holds it."""
    return UUID(tenant_id) if isinstance(tenant_id, str) else tenant_id


def whole(value: object, maximum: int) -> int:
    """Return a whole number. Raises ValueError for everything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise ValueError(f"{value!r} is not a whole number from 0 to {maximum}")
    return value


def optional_whole(value: object, maximum: int) -> int | None:
    """Return a whole number or None."""
    return None if value is None else whole(value, maximum)


def duration(value: object) -> float | None:
    """Return a time in milliseconds, None for one that is no number. Raises ValueError for what is no time at all."""
    if value is None:
        return None
    found = float(cast("Any", value))
    return found if math.isfinite(found) and abs(found) <= _LARGEST_EXACT else None


def plain(value: object) -> object:
    """Return a value that both databases give back as it was, and that RFC 8785 can carry."""
    match value:
        case None | bool():
            return value
        case str():
            return text(value, MAX_DETAILS_BYTES)
        case int():
            return value if abs(value) <= _LARGEST_EXACT else str(value)
        case float():
            return _number(value)
        case Mapping():
            return {text(name, _MAX_NAME): plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    try:
        return plain(_other(value))
    except TypeError:
        return text(value, MAX_DETAILS_BYTES)


def _number(value: float) -> object:
    if not math.isfinite(value):
        return None
    return value if abs(value) <= _LARGEST_EXACT else str(value)


def details(value: Mapping[str, object]) -> dict[str, object]:
    """Return an object without secrets, and of a bounded size."""
    if not value:
        return {}
    cleaned = cast("dict[str, object]", plain(redact(value)))
    if not _is_surely_short(cleaned) and len(json.dumps(cleaned)) > MAX_DETAILS_BYTES:
        return {"truncated": True}
    return cleaned


def _is_surely_short(value: dict[str, object]) -> bool:
    """Say whether an object fits without a look at its JSON, where a character takes six at most."""
    return len(value) <= _FEW and all(
        len(name) <= _SHORT and (len(inner) <= _SHORT if isinstance(inner, str) else isinstance(inner, _SCALAR))
        for name, inner in value.items()
    )


def reasons(value: Any) -> list[str]:
    """Return the rules that a score comes from."""
    return [text(reason, 200) for reason in (value or [])[:MAX_REASONS]]


def findings(value: Any) -> list[dict[str, object]]:
    """Return findings with the fields that they have by definition. Raises TypeError, ValueError or AttributeError."""
    return [_finding(entry) for entry in (value or [])[:MAX_FINDINGS]]


def _finding(entry: Mapping[str, Any]) -> dict[str, object]:
    if not isinstance(entry, Mapping):
        raise TypeError("a finding is no object")
    kept: dict[str, object] = {name: text(entry.get(name), length) for name, length in _FINDING_TEXTS.items()}
    kept["weight"] = whole(entry.get("weight", 0), 100)
    kept["span"] = _span(entry.get("span"))
    kept["chain"] = [span for step in (entry.get("chain") or [])[:_MAX_CHAIN] if (span := _span(step)) is not None]
    return kept


def _span(value: Any) -> dict[str, int] | None:
    return None if value is None else {name: whole(value.get(name, 0), _LARGEST_EXACT) for name in _SPAN}


def seed(value: Any) -> dict[str, object]:
    """Return what the ruleset seed-v1 said: its score, its tier where it had one, and its reasons."""
    if not value:
        return {}
    found: dict[str, object] = {"score": whole(value.get("score"), 100), "reasons": reasons(value.get("reasons"))}
    return found | ({"tier": text(value["tier"], 2)} if value.get("tier") else {})


def assessed(assessment: Assessment) -> dict[str, Any]:
    """Return an assessment as the columns of an event."""
    found = columns(assessment)
    return found | {"risk_reasons": reasons(found["risk_reasons"]), "risk_findings": findings(found["risk_findings"])}
