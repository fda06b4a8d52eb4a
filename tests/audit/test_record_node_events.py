"""Events from a node's spool arrive at least once and are kept exactly once, whatever they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from audit.recording import record_node_event, record_node_events
from corekit import clock, ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenants.models import Tenant


def spooled(**changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "seq": 7,
        "id": ids.new_event_id(),
        "at": 1_767_323_045_678,
        "node_id": "node-1",
        "sandbox": "i1",
        "generation": 2,
        "tenant": "f" * 32,
        "code": "command.start",
        "phase": "result",
        "ref": ids.new_event_id(),
        "key_id": "0123456789abcdef",
        "origin": "203.0.113.9",
        "request_id": "request-0001",
        "tool_name": "exec_code",
        "args_hash": "ab" * 32,
        "args_shape": {"cmd": "text(9)"},
        "risk_score": 30,
        "risk_reasons": ["the tool exec_code is dangerous"],
        "outcome": "ok",
        "duration_ms": 12.5,
        "details": {"exit_code": 0},
    }
    return event | changes


def test_all_fields_arrive_and_the_tenant_is_ours(acme: Tenant) -> None:
    event = spooled()
    assert record_node_event(event, tenant_id=acme.id.hex) is True
    row = Event.objects.get(pk=event["id"])
    assert row.tenant_id == acme.id
    assert clock.to_ms(row.at) == event["at"]
    assert (row.object_type, row.object_id, row.generation, row.node_id) == ("sandbox", "i1", 2, "node-1")
    assert (row.actor_kind, row.actor_id) == ("api_key", "0123456789abcdef")
    assert (row.phase, row.ref, row.outcome, row.duration_ms) == ("result", event["ref"], "ok", 12.5)
    assert (row.tool_name, row.args_hash, row.args_shape) == ("exec_code", "ab" * 32, {"cmd": "text(9)"})
    assert (row.risk_score, row.risk_reasons) == (30, ["the tool exec_code is dangerous"])
    assert (row.origin, row.request_id, row.details) == ("203.0.113.9", "request-0001", {"exit_code": 0})


FINDING: dict[str, Any] = {
    "rule": "sh.net.client",
    "title": "Talks to the network",
    "kind": "capability",
    "tier": "L2",
    "message": "curl fetches a page.",
    "snippet": "curl example.com",
    "weight": 30,
    "span": {"line": 1, "column": 0, "end_line": 1, "end_column": 4, "offset": 0, "end_offset": 4},
    "chain": [],
}
LATER: dict[str, Any] = {
    "risk_band": "medium",
    "risk_tier": "L2",
    "risk_ruleset": "gatehouse-v1:0123456789ab",
    "risk_findings": [FINDING],
    "risk_seed": {"score": 30, "reasons": ["the tool exec_code is dangerous"]},
    "args_size": 17,
    "args_key_id": "2026",
    "user_agent": "python-httpx/0.28",
    "trace_id": "a" * 32,
    "span_id": "b" * 16,
    "tier": "container",
    "decision": "allow",
    "status": 200,
    "reason": "client_gone",
    "gateway_id": "c" * 32,
    "gateway_seq": 9,
}


def test_what_newer_nodes_tell_arrives_too(acme: Tenant) -> None:
    event = spooled(**LATER)
    record_node_event(event, tenant_id=acme.id)
    row = Event.objects.get(pk=event["id"])
    assert (row.risk_band, row.risk_tier, row.risk_ruleset) == ("medium", "L2", LATER["risk_ruleset"])
    assert (row.risk_findings, row.risk_seed) == ([FINDING], LATER["risk_seed"])
    assert (row.args_size, row.args_key_id, row.user_agent) == (17, "2026", "python-httpx/0.28")
    assert (row.trace_id, row.span_id, row.tier) == ("a" * 32, "b" * 16, "container")
    assert (row.decision, row.status, row.reason) == ("allow", 200, "client_gone")
    assert row.context == {"gateway": {"id": "c" * 32, "seq": 9}}


def test_what_is_always_known_is_there_with_older_nodes_too(acme: Tenant) -> None:
    event = spooled()
    record_node_event(event, tenant_id=acme.id)
    row = Event.objects.get(pk=event["id"])
    assert (row.producer, row.producer_seq, row.sandbox_id) == ("node:node-1", 7, "i1")
    assert (row.actor_auth, row.token_id, row.risk_band) == ("access_token", "0123456789abcdef", "medium")
    assert row.received_at > row.at


def test_a_repeated_event_is_kept_once(acme: Tenant) -> None:
    event = spooled()
    assert record_node_event(event, tenant_id=acme.id) is True
    assert record_node_event(event, tenant_id=acme.id) is False
    other = spooled()
    assert record_node_events([(event, acme.id), (other, acme.id), (other, acme.id)]) == [False, True, False]
    assert Event.objects.filter(code="command.start").count() == 2


def test_a_batch_costs_a_fixed_number_of_statements(
    acme: Tenant, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    with django_assert_max_num_queries(11):
        assert all(record_node_events([(spooled(), acme.id) for _ in range(30)]))


def test_what_the_node_itself_saw_is_the_nodes(acme: Tenant) -> None:
    event = spooled(code="sandbox.ended", key_id=None, phase="fact", outcome=None, tool_name=None, origin=None)
    record_node_event(event | {"details": {"reason": "expired"}}, tenant_id=acme.id)
    row = Event.objects.get(pk=event["id"])
    assert (row.actor_kind, row.actor_id, row.outcome, row.tool_name) == ("node", "node-1", "", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "nonsense"},
        {"id": None},
        {"at": "yesterday"},
        {"at": -1},
        {"at": 10**30},
        {"phase": "maybe"},
        {"outcome": "maybe"},
        {"generation": "two"},
        {"risk_score": 101},
        {"code": ""},
        {"code": "c" * 65},
        {"details": "text"},
        {"risk_reasons": 5},
        {"duration_ms": "fast"},
        {"risk_band": "purple"},
        {"risk_tier": "L9"},
        {"risk_findings": ["text"]},
        {"risk_findings": [{"weight": 900}]},
        {"risk_findings": [{"span": 5}]},
        {"risk_seed": "text"},
        {"risk_seed": {"score": "many"}},
        {"args_size": -1},
        {"decision": "maybe"},
        {"status": "good"},
        {"gateway_seq": "first"},
    ],
)
def test_an_event_that_cannot_be_read_stops_nothing(acme: Tenant, changes: dict[str, Any]) -> None:
    bad, good = spooled(**changes), spooled()
    assert record_node_events([(bad, acme.id), (good, acme.id)]) == [True, True]
    assert record_node_events([(bad, acme.id)]) == [False]
    row = Event.objects.get(code="spool.malformed")
    assert (row.tenant_id, row.object_id, row.outcome) == (acme.id, "i1", "error")
    assert "node-1" in str(row.details["event"])
    assert Event.objects.filter(pk=good["id"]).exists()


def test_an_empty_event_is_kept_too(acme: Tenant) -> None:
    assert record_node_event({}, tenant_id=acme.id) is True
    assert Event.objects.get(code="spool.malformed").object_id == "unknown"


def test_long_and_hostile_text_is_cut_and_cleaned(acme: Tenant) -> None:
    event = spooled(
        tool_name="t" * 500,
        request_id="r\x00" + "r" * 500,
        origin="nowhere",
        details={"error": "a\x00\ud800b" * 10, "n": [["\x00"]]},
        risk_reasons=["r" * 500] * 100,
    )
    assert record_node_event(event, tenant_id=acme.id)
    row = Event.objects.get(pk=event["id"])
    assert (len(row.tool_name), len(row.request_id), row.origin) == (64, 64, None)
    assert "\x00" not in str(row.details) + row.request_id
    assert (len(row.risk_reasons), len(row.risk_reasons[0])) == (20, 200)


def test_a_newer_nodes_codes_are_kept(acme: Tenant) -> None:
    event = spooled(code="command.teleport")
    assert record_node_event(event, tenant_id=acme.id)
    assert Event.objects.get(pk=event["id"]).code == "command.teleport"
