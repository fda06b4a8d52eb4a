"""One event has one text, whichever database kept it, and every column is in it."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import canonical
from audit.insertion import insert
from audit.models import Event

TENANT = UUID("0190f3c2-7a10-7e2b-8c3d-4e5f60718293")
AT = datetime(2026, 11, 25, 12, 30, 15, 678901, tzinfo=UTC)
FULL: dict[str, Any] = {
    "id": "0" * 31 + "1",
    "tenant_id": TENANT,
    "code": "command.start",
    "at": AT,
    "received_at": AT.replace(microsecond=500000).astimezone(timezone(timedelta(hours=5))),
    "phase": "result",
    "ref": "0" * 31 + "2",
    "producer": "node:n1",
    "producer_seq": 2**40,
    "actor_kind": "api_key",
    "actor_id": "00112233aabbccdd",
    "actor_name": 'quote " backslash \\ tab \t newline \n é 漢 🙂',
    "actor_auth": "api_key",
    "on_behalf_of": "alice",
    "token_id": "t1",
    "origin": "2001:db8::7",
    "user_agent": "e2b/2.63.0",
    "request_id": "req_1",
    "trace_id": "4b" * 16,
    "span_id": "00f067aa0ba902b7",
    "run_id": "run_1",
    "object_type": "sandbox",
    "object_id": "i1",
    "object_name": "crawler",
    "sandbox_id": "i1",
    "generation": 3,
    "tier": "container",
    "policy_version": "p7",
    "node_id": "n1",
    "outcome": "refused",
    "decision": "deny",
    "status": 403,
    "reason": "not allowed",
    "duration_ms": 0.1 + 0.2,
    "tool_name": "exec_code",
    "args_hash": "5e" * 32,
    "args_key_id": "k1",
    "args_size": 2**33,
    "args_shape": {"cmd": "text(9)", "args": {"é": "list(2)"}},
    "risk_score": 0,
    "risk_band": "low",
    "risk_tier": "L2",
    "risk_ruleset": "gatehouse-v1:0123456789ab",
    "risk_reasons": ["a\nb", "c\td"],
    "risk_findings": [{"rule": "proc.shell", "span": {"line": 1, "column": 0}}],
    "risk_seed": {"score": 30, "tier": "L2"},
    "host": "example.com",
    "context": {"net": {"port": 443}},
    "details": {"n": 1.5, "none": None, "flag": True, "whole": 2.0, "small": 1e-7, "text": "\\N"},
}
DOCUMENT = {
    "v": 1,
    "id": "0" * 31 + "1",
    "tenant": TENANT.hex,
    "code": "command.start",
    "ts": "2026-11-25T12:30:15.678901Z",
    "recv_ts": "2026-11-25T12:30:15.500000Z",
    "phase": "result",
    "ref": "0" * 31 + "2",
    "producer": {"id": "node:n1", "seq": 2**40},
    "actor": {
        "type": "api_key",
        "id": "00112233aabbccdd",
        "name": FULL["actor_name"],
        "auth": "api_key",
        "on_behalf_of": "alice",
        "token_id": "t1",
    },
    "client": {"ip": "2001:db8::7", "ua": "e2b/2.63.0"},
    "trace": {"request_id": "req_1", "trace_id": "4b" * 16, "span_id": "00f067aa0ba902b7"},
    "run": "run_1",
    "target": {"type": "sandbox", "id": "i1", "name": "crawler"},
    "sandbox": {"id": "i1", "generation": 3, "tier": "container", "policy_version": "p7"},
    "node": "n1",
    "outcome": {"status": "refused", "decision": "deny", "code": 403, "reason": "not allowed"},
    "dur_ms": 0.1 + 0.2,
    "tool": "exec_code",
    "args": {"hmac": "5e" * 32, "alg": "hmac-sha256", "key_id": "k1", "size": 2**33, "shape": FULL["args_shape"]},
    "risk": {
        "score": 0,
        "band": "low",
        "tier": "L2",
        "ruleset": "gatehouse-v1:0123456789ab",
        "reasons": ["a\nb", "c\td"],
        "findings": FULL["risk_findings"],
        "seed": {"score": 30, "tier": "L2"},
    },
    "net": {"host": "example.com"},
    "context": {"net": {"port": 443}},
    "details": FULL["details"],
}
COLUMNS = [field.attname for field in Event._meta.concrete_fields]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _stored_row(event: Event) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        columns = canonical.select(connection.vendor, "e")
        cursor.execute(f"SELECT {columns} FROM audit_event e WHERE id = %s", [event.pk])  # noqa: S608
        row: tuple[Any, ...] = cursor.fetchone()
    return row


def _other(value: Any) -> Any:
    """Return a value of the same kind that differs."""
    match value:
        case UUID():
            return UUID(int=value.int ^ 1)
        case datetime():
            return value + timedelta(microseconds=1)
        case int() | float():
            return value + 1
        case dict():
            return {**value, "more": 1}
        case list():
            return [*value, "more"]
    return {"2001:db8::7": "2001:db8::8", "result": "intent"}.get(value, value[:-1] + chr(ord(value[-1]) ^ 1))


def test_an_event_is_one_nested_document() -> None:
    assert canonical.document(Event(**FULL)) == DOCUMENT


def test_the_document_is_in_the_form_of_rfc_8785() -> None:
    assert canonical.body(Event(**FULL)) == rfc8785.dumps(DOCUMENT)


def test_every_column_has_its_place() -> None:
    assert list(canonical.NAMES) == COLUMNS
    assert set(FULL) == set(COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_another_value_in_any_column_is_another_text(column: str) -> None:
    changed = canonical.body(Event(**{**FULL, column: _other(FULL[column])}))
    assert changed != canonical.body(Event(**FULL))
    assert b'"unreadable"' not in changed


def test_empty_values_are_left_out() -> None:
    bare = Event(
        id="a" * 32, code="node.lost", at=AT, received_at=AT, actor_kind="system", actor_id="s", actor_name="s"
    )
    assert canonical.document(bare) == {
        "v": 1,
        "id": "a" * 32,
        "code": "node.lost",
        "ts": "2026-11-25T12:30:15.678901Z",
        "recv_ts": "2026-11-25T12:30:15.678901Z",
        "phase": "fact",
        "actor": {"type": "system", "id": "s", "name": "s"},
        "outcome": {"status": "ok"},
    }


@pytest.mark.django_db
def test_what_the_database_gives_back_has_the_same_text() -> None:
    event = Event(**FULL)
    insert([event])
    assert canonical.body_of(_stored_row(event)) == canonical.body(event)
    assert canonical.body(Event.objects.get(pk=event.pk)) == canonical.body(event)


@pytest.mark.django_db
@pytest.mark.parametrize("number", [1e20, 1.5e300, 2.0**60, 123456789012345680.0, -0.0, 1e-7, 5e-324, 0.1, 1e15, 3.0])
def test_unusual_numbers_have_the_same_text_in_the_database(number: float) -> None:
    event = Event(**{**FULL, "details": {"n": number}, "duration_ms": number})
    insert([event])
    assert canonical.body_of(_stored_row(event)) == canonical.body(event)
    assert canonical.body(event) == rfc8785.dumps({**DOCUMENT, "details": {"n": number}, "dur_ms": number})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address", ["203.0.113.7", "2001:db8::7", "::ffff:203.0.113.7", "::1", "fe80::1", "2001:db8:0:1:1:1:1:1"]
)
def test_addresses_have_the_same_text_in_the_database(address: str) -> None:
    event = Event(**{**FULL, "origin": address})
    insert([event])
    assert canonical.body_of(_stored_row(event)) == canonical.body(event)


@given(json_values)
@settings(deadline=None)
def test_any_json_is_written_as_rfc_8785_writes_it(value: Any) -> None:
    def as_doubles(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {name: as_doubles(one) for name, one in inner.items()}
        if isinstance(inner, list):
            return [as_doubles(one) for one in inner]
        return float(inner) if type(inner) is int and abs(inner) >= 2**53 else inner

    assert canonical.encode(value) == rfc8785.dumps(as_doubles(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_any_duration_is_written_as_rfc_8785_writes_it(number: float) -> None:
    written = canonical.body(Event(**{**FULL, "duration_ms": number}))
    assert written == rfc8785.dumps({**DOCUMENT, "dur_ms": number})


def test_names_are_sorted_as_utf_16() -> None:
    assert canonical.encode({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == '{"a":3,"\U0001f600":2,"\ufb33":1}'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, {"n": -math.inf}, "\ud800", {"\udfff": 1}])
def test_what_json_cannot_carry_has_no_text(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical.encode(value)


@pytest.mark.parametrize(
    ("column", "value"),
    [("details", "{not json"), ("details", '{"n": NaN}'), ("actor_name", b"\xff"), ("at", "tomorrow"), ("status", "x")],
)
def test_a_row_that_nobody_of_us_wrote_still_has_a_text_of_its_own(column: str, value: object) -> None:
    row: list[Any] = ["x"] * len(canonical.COLUMNS)
    row[canonical.COLUMNS.index("id")] = "a" * 32
    row[canonical.COLUMNS.index(column)] = value

    found = json.loads(canonical.body_of(row))

    assert found == {"id": "a" * 32, "unreadable": found["unreadable"], "v": 1}
    row[0] = "b" * 32
    assert json.loads(canonical.body_of(row))["unreadable"] != found["unreadable"]


def test_the_hash_covers_chain_number_and_the_hash_before() -> None:
    previous, body = b"\x11" * 32, b"{}"
    found = canonical.chain_hash("platform", 7, previous, body)
    written = b"\x00gatehouse-audit-v1" + b"\x00\x08platform" + b"\x00" * 7 + b"\x07" + previous + body
    assert found == hashlib.sha256(written).digest()
    assert found.hex() == "9557b7ea1aa0bc0f992b5900be72b81d99fc1a20a48feea17100dfd4f10cb87e"
