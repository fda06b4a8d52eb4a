"""GET /sandboxes/{id}/logs and GET /v2/sandboxes/{id}/logs: the audit of a sandbox, in sentences."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit import recording
from corekit import clock
from sandboxes import events, node_client

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def busy(node: NodeDouble, base: Template, alice: Caller) -> str:
    """A sandbox in which a command ran and failed to be read, that met a limit; return its id."""
    sandbox_id = str(alice.create()["sandboxID"])
    guest = node.guests[sandbox_id]
    emit(node, guest, "command.start", phase="intent")
    emit(node, guest, "command.start", phase="result", details={"exit_code": 3, "error": "cat: /secret: no"})
    emit(node, guest, "limit.pids", details={"pids": 256})
    emit(node, guest, "file.read", phase="result", outcome="error", details={"size": 7})
    emit(node, guest, "file.write", phase="result", outcome="refused")
    events.collect(node_client.local_node())
    return sandbox_id


def emit(node: NodeDouble, guest: Any, code: str, **more: object) -> None:
    # A millisecond apart, so that the order is theirs.
    node.emit(code, guest, at=clock.epoch_ms() + node.seq, key_id="0123456789abcdef", **more)


def read(who: Caller, sandbox_id: str, query: str = "") -> list[dict[str, Any]]:
    """Return the entries of the second version."""
    answer = who.call("GET", f"/v2/sandboxes/{sandbox_id}/logs{query}")
    assert answer.status_code == 200, answer.content
    found: list[dict[str, Any]] = answer.json()["logs"]
    return found


def codes(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["fields"]["event"] for entry in entries]


EVERYTHING = [
    "sandbox.created",
    "sandbox.started",
    "command.start",
    "limit.pids",
    "file.read",
    "file.write",
]


def test_it_tells_what_happened_oldest_first(busy: str, alice: Caller) -> None:
    entries = read(alice, busy)

    assert codes(entries) == EVERYTHING
    assert [entry["level"] for entry in entries] == ["info", "info", "info", "warn", "error", "warn"]
    assert entries[0]["message"] == f"Alice's key created the sandbox {busy}."
    assert entries[0]["timestamp"].endswith("Z")
    assert entries[2]["fields"] == {"event": "command.start", "outcome": "ok", "exit_code": "3"}


def test_no_argument_and_no_word_of_a_guest_is_in_it(busy: str, alice: Caller) -> None:
    assert "secret" not in str(read(alice, busy))


def test_the_first_version_has_lines_and_entries(busy: str, alice: Caller) -> None:
    body = alice.call("GET", f"/sandboxes/{busy}/logs").json()

    assert body["logEntries"] == read(alice, busy)
    assert body["logs"] == [{"timestamp": one["timestamp"], "line": one["message"]} for one in body["logEntries"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?limit=2", EVERYTHING[:2]),
        ("?limit=0", []),
        ("?direction=backward", EVERYTHING[::-1]),
        ("?direction=backward&limit=1", EVERYTHING[-1:]),
        ("?level=debug", EVERYTHING),
        ("?level=info", EVERYTHING),
        ("?level=warn", EVERYTHING[3:]),
        ("?level=error", ["file.read"]),
        ("?search=COMMAND", ["command.start"]),
        ("?search=nowhere", []),
        ("?search=file&limit=1", ["file.read"]),
        ("?cursor=0", EVERYTHING),
        ("?cursor=253402300799999", []),
        ("?cursor=0&direction=backward", []),
    ],
)
def test_it_can_be_asked_for_less(busy: str, alice: Caller, query: str, expected: list[str]) -> None:
    assert codes(read(alice, busy, query)) == expected


def test_a_cursor_goes_on_where_the_last_page_ended(busy: str, alice: Caller) -> None:
    first = read(alice, busy, "?limit=3")
    upto = clock.to_ms(clock.now()) if not first else _ms(first[-1]["timestamp"])

    assert codes(read(alice, busy, f"?cursor={upto + 1}")) == EVERYTHING[3:]
    assert codes(read(alice, busy, f"?cursor={upto}&direction=backward")) == EVERYTHING[2::-1]


def _ms(text: str) -> int:
    from datetime import datetime

    return clock.to_ms(datetime.fromisoformat(text))


def test_the_first_version_starts_at_a_time(busy: str, alice: Caller) -> None:
    late = clock.to_ms(clock.now() + timedelta(hours=1))

    assert alice.call("GET", f"/sandboxes/{busy}/logs?start={late}").json() == {"logs": [], "logEntries": []}
    assert len(alice.call("GET", f"/sandboxes/{busy}/logs?start=0&limit=2").json()["logs"]) == 2


def test_a_sandbox_that_ended_still_has_its_log(busy: str, alice: Caller) -> None:
    alice.call("DELETE", f"/sandboxes/{busy}")

    assert "sandbox.killed" in codes(read(alice, busy))


def test_an_event_that_only_a_newer_node_knows_is_shown(node: NodeDouble, busy: str, alice: Caller) -> None:
    node.emit("fancy.{0}", node.guests[busy], at=clock.epoch_ms() + 60_000)
    events.collect(node_client.local_node())

    assert read(alice, busy)[-1]["message"] == f"fancy.{{0}} in {busy}."


def test_another_tenants_event_about_the_same_id_is_not_in_it(busy: str, alice: Caller, mallory: Caller) -> None:
    recording.record(
        "sandbox.killed", actor=mallory.actor, object_type="sandbox", object_id=busy, tenant_id=mallory.tenant.pk
    )

    assert codes(read(alice, busy)) == EVERYTHING
    assert mallory.call("GET", f"/v2/sandboxes/{busy}/logs").status_code == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("level=loud", "level"),
        ("direction=up", "direction"),
    ],
)
def test_it_rejects_a_bad_query_naming_the_field(busy: str, alice: Caller, query: str, field: str) -> None:
    answer = alice.call("GET", f"/v2/sandboxes/{busy}/logs?{query}")

    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("path", ["/sandboxes/{}/logs", "/v2/sandboxes/{}/logs?search=x"])
def test_it_costs_three_statements(busy: str, alice: Caller, path: str) -> None:
    alice.call("GET", path.format(busy))
    with CaptureQueriesContext(connection) as captured:
        assert alice.call("GET", path.format(busy)).status_code == 200

    assert len(captured) == 3
