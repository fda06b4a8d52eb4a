"""The policy time machine: recorded traffic judged by a policy that is not in force, and the least policy it needs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.models import Event
from audit.recording import record_node_events
from corekit import clock, ids
from corekit.errors import Forbidden, InvalidInput, NotFound
from sandboxes import flows
from sandboxes.models import Node, Sandbox, Template
from tenants.networks import actions
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tenants.models import Tenant
    from tests.sandboxes.fixtures import Caller

DAY = timedelta(hours=24)
MINUTE_MS = 60_000


def happened(tenant: Tenant, *facts: dict[str, Any], minutes_ago: int = 5, sandbox: str = "ibox") -> None:
    """Write down facts as they come from the egress process through a node's spool."""
    events = [
        {
            "id": ids.new_event_id(),
            "node_id": "node-1",
            "sandbox": sandbox,
            "generation": 1,
            "phase": "fact",
            "at": clock.to_ms(clock.now()) - minutes_ago * MINUTE_MS,
            **fact,
        }
        for fact in facts
    ]
    record_node_events([(event, tenant.pk) for event in events])


def passed(host: str, port: int = 443, protocol: str = "tls", via: str = "proxy", **details: Any) -> dict[str, Any]:
    """Return a flow that was let through."""
    return {
        "code": "egress.closed",
        "decision": "allow",
        "details": {"host": host, "port": port, "protocol": protocol, "via": via, "bytes_in": 10, **details},
    }


def refused(host: str | None, port: int | None = 443, reason: str = "no_rule", **details: Any) -> dict[str, Any]:
    """Return a flow that was refused."""
    return {
        "code": "egress.denied",
        "decision": "deny",
        "outcome": "refused",
        "reason": reason,
        "details": {"host": host, "port": port, "via": "proxy", "count": 1, **details},
    }


def unnamed(host: str, count: int = 1) -> dict[str, Any]:
    """Return a name that was not told."""
    return {
        "code": "egress.dns_denied",
        "decision": "deny",
        "outcome": "refused",
        "reason": "dns_denied",
        "details": {"host": host, "via": "dns", "count": count},
    }


@pytest.fixture
def wide(acme: Tenant) -> None:
    """Let Acme reach everything public, so that only its own policies matter."""
    actions.set_ceiling(actor=OPERATOR, tenant=acme, public_internet=True)


def told(rows: list[flows.Counted]) -> list[tuple[Any, ...]]:
    """Return what a list says, short."""
    return [(one.host, one.port, one.count, one.reason, one.layer) for one in rows]


def test_a_replay_says_what_would_break_and_what_would_open(alice: Caller, acme: Tenant, wide: None) -> None:
    happened(
        acme,
        passed("a.example"),
        passed("a.example"),
        passed("b.example"),
        passed("b.example"),
        passed("b.example", 80, "http"),
        refused("c.example", count=7),
        refused("d.example", 8443, "port"),
        unnamed("e.example", 3),
        unnamed("f.example"),
    )

    found = flows.replay(
        alice.actor, acme, body={"egress": ["a.example:443", "c.example:443", "e.example:5432"]}, window=DAY
    )

    assert told(found.broken) == [
        ("b.example", 443, 2, "no_rule", "sandbox"),
        ("b.example", 80, 1, "no_rule", "sandbox"),
    ]
    assert told(found.opened) == [("c.example", 443, 7, "", "sandbox"), ("e.example", None, 3, "", "sandbox")]
    assert (found.still_allowed, found.still_denied) == (2, 2)
    assert (found.events, found.cut) == (9, False)


def test_a_named_policy_is_replayed_under_the_ceiling(alice: Caller, acme: Tenant) -> None:
    happened(acme, passed("api.openai.com"), passed("a.example"))
    actions.create_policy(
        actor=alice.actor, tenant=acme, name="mine", body={"egress": ["api.openai.com:443", "a.example:443"]}
    )

    found = flows.replay(alice.actor, acme, policy="mine", window=DAY)

    assert told(found.broken) == [("a.example", 443, 1, "no_rule", "tenant")]
    assert found.still_allowed == 1


def test_a_rule_for_another_protocol_breaks_and_opens_too(alice: Caller, acme: Tenant) -> None:
    hosts = ["raw.example:443/tcp", "ws.example:80/ws", "odd.example:443/tcp", "other.example:443/tcp"]
    actions.create_policy(actor=OPERATOR, tenant=None, name="company", body={"egress": hosts})
    actions.set_ceiling(actor=OPERATOR, tenant=acme, policy="company")
    happened(
        acme,
        passed("raw.example", 443, "tcp"),
        passed("ws.example", 80, "ws"),
        refused("odd.example", 443, "not_tls"),
        refused("other.example", 443, "not_tls"),
    )
    body = {"egress": ["raw.example:443", "ws.example:80", "odd.example:443/tcp", "other.example:443"]}

    found = flows.replay(alice.actor, acme, body=body, window=DAY)

    assert told(found.broken) == [
        ("raw.example", 443, 1, "not_tls", "sandbox"),
        ("ws.example", 80, 1, "not_http", "sandbox"),
    ]
    assert told(found.opened) == [("odd.example", 443, 1, "", "sandbox")]
    assert found.still_denied == 1


@pytest.mark.parametrize("reason", ["sni_mismatch", "sni_missing", "ech", "smuggling", "resolved_private", "limit"])
def test_what_no_policy_decides_stays_denied(alice: Caller, acme: Tenant, wide: None, reason: str) -> None:
    happened(acme, refused("a.example", 443, reason))

    found = flows.replay(alice.actor, acme, body={"egress": ["a.example:443"]}, window=DAY)

    assert (found.opened, found.still_denied) == ([], 1)


def test_metadata_and_private_addresses_open_for_no_policy(alice: Caller, acme: Tenant, wide: None) -> None:
    happened(
        acme,
        refused("169.254.169.254", 80, "metadata"),
        refused("10.1.2.3", 5432, "literal_ip"),
        refused("8.8.8.8", 53, "literal_ip"),
        refused("0x7f.1", 80, "bad_host"),
    )

    found = flows.replay(alice.actor, acme, body={"egress": ["10.0.0.0/8:5432", "8.8.8.8:53"]}, window=DAY)

    assert told(found.opened) == [("8.8.8.8", 53, 1, "", "sandbox")]
    assert found.still_denied == 3


def test_without_dns_only_the_proxy_leads_to_names(alice: Caller, acme: Tenant, wide: None) -> None:
    happened(acme, passed("a.example", via="transparent"), passed("a.example", via="proxy"))

    found = flows.replay(alice.actor, acme, body={"egress": ["a.example:443"], "dns": False}, window=DAY)

    assert told(found.broken) == [("a.example", 443, 1, "dns_denied", "")]
    assert found.still_allowed == 1


def test_only_the_window_and_the_own_tenant_count(
    alice: Caller, mallory: Caller, acme: Tenant, evil_corp: Tenant, wide: None
) -> None:
    happened(acme, passed("old.example"), minutes_ago=61)
    happened(acme, passed("new.example"), minutes_ago=59)
    happened(evil_corp, passed("theirs.example"))
    Event(tenant_id=acme.pk, code="command.start", actor_kind="node", actor_id="n", actor_name="n").save()

    found = flows.replay(alice.actor, acme, body={}, window=timedelta(hours=1))

    assert told(found.broken) == [("new.example", 443, 1, "no_rule", "sandbox")]
    assert found.events == 1


def test_the_reserved_names_and_floods_of_names_are_no_hosts(alice: Caller, acme: Tenant, wide: None) -> None:
    happened(acme, passed("broker.gatehouse.internal", 80, "http"), refused(None, None, many=True, count=900))

    found = flows.replay(alice.actor, acme, body={}, window=DAY)

    assert (found.broken, found.opened, found.events) == ([], [], 2)


def test_a_replay_says_when_it_was_cut(
    alice: Caller, acme: Tenant, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened(acme, *(passed(f"n{number}.example") for number in range(4)))
    monkeypatch.setattr(flows, "MAX_EVENTS", 4)
    assert flows.replay(alice.actor, acme, body={}, window=DAY).cut is False

    happened(acme, passed("newest.example"), minutes_ago=1)
    found = flows.replay(alice.actor, acme, body={}, window=DAY)
    assert (found.events, found.cut) == (4, True)
    assert "newest.example" in {one.host for one in found.broken}

    monkeypatch.setattr(flows, "MAX_EVENTS", 10)
    monkeypatch.setattr(flows, "MAX_ROWS", 3)
    found = flows.replay(alice.actor, acme, body={}, window=DAY)
    assert (len(found.broken), found.events, found.cut) == (3, 5, True)


def test_a_replay_reads_no_more_than_it_needs(alice: Caller, acme: Tenant, wide: None) -> None:
    happened(acme, passed("a.example"))
    with CaptureQueriesContext(connection) as captured:
        flows.replay(alice.actor, acme, body={}, window=DAY)

    query = next(one["sql"] for one in captured.captured_queries if "audit_event" in one["sql"])
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("EXPLAIN " + query)
        else:
            cursor.execute("EXPLAIN QUERY PLAN " + query)
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    assert "audit_event_egress" in plan
    assert f"LIMIT {flows.MAX_EVENTS + 1}" in query


def test_a_replay_needs_both_scopes_and_the_own_tenant(alice: Caller, vera: Caller, acme: Tenant) -> None:
    assert flows.replay(vera.actor, acme, body={}, window=DAY).events == 0
    for missing in ("networks:read", "audit:read"):
        from dataclasses import replace

        with pytest.raises(Forbidden):
            flows.replay(replace(vera.actor, scopes=vera.actor.scopes - {missing}), acme, body={}, window=DAY)
    with pytest.raises(InvalidInput) as wrong:
        flows.replay(alice.actor, acme, body={"egress": ["x"]}, window=DAY)
    assert wrong.value.field == "egress[0]"
    with pytest.raises(InvalidInput):
        flows.replay(alice.actor, acme, policy="nothing", window=DAY)


def test_the_tenant_sees_that_an_operator_read(acme: Tenant) -> None:
    flows.replay(OPERATOR, acme, body={}, window=DAY)

    event = Event.objects.get(code="audit.read")
    assert (event.tenant_id, event.actor_id) == (acme.pk, "operator")


# --- learn


@pytest.fixture
def box(acme: Tenant) -> Sandbox:
    """Return a sandbox of Acme that has ended."""
    template = Template.objects.create(name="base", build_id="b-1")
    sandbox = Sandbox(
        id="ibox",
        tenant=acme,
        template=template,
        template_name="base",
        build_id="b-1",
        node=Node.objects.create(pk="node-1"),
        state="ended",
        end_reason="killed",
        tier="container",
        profile="workstation",
        cpu_milli=1000,
        memory_mib=512,
        disk_mib=1024,
        pids=256,
        timeout_s=300,
        created_by="k",
        started_at=clock.now(),
        ended_at=clock.now(),
    )
    sandbox.save(force_insert=True)
    return sandbox


def test_the_least_policy_lets_through_what_a_sandbox_did(
    alice: Caller, acme: Tenant, box: Sandbox, wide: None
) -> None:
    happened(
        acme,
        passed("a.example"),
        passed("a.example"),
        passed("plain.example", 80, "http"),
        passed("db.example", 5432, "tcp", via="transparent"),
        passed("raw.example", 443, "tcp"),
        passed("api.example", 8443, "tls"),
        refused("wanted.example"),
        refused("wanted.example", 8080, "port"),
        refused("8.8.8.8", 53, "literal_ip"),
        refused("chat.example", 80, "upgrade"),
        unnamed("wanted.example"),
        unnamed("asked.example", 2),
        refused("169.254.169.254", 80, "metadata"),
        refused("10.1.2.3", 5432, "literal_ip"),
        refused("front.example", 443, "sni_mismatch"),
    )
    happened(acme, passed("other.example"), sandbox="iother")

    draft = flows.learn(alice.actor, box.pk, window=DAY)

    assert draft.body == {
        "mode": "deny",
        "egress": [
            "8.8.8.8:53",
            "a.example:443",
            "api.example:8443/tls",
            "chat.example:80/ws",
            "db.example:5432",
            "plain.example:80",
            "raw.example:443/tcp",
            "wanted.example:443",
            "wanted.example:8080",
        ],
        "ingress": [],
        "dns": True,
    }
    # Nothing of these was let through so far.
    assert draft.tried == ["8.8.8.8:53", "chat.example:80/ws", "wanted.example:443", "wanted.example:8080"]
    assert sorted((one.host, one.port, one.reason, one.count) for one in draft.left_out) == [
        ("10.1.2.3", 5432, "literal_ip", 1),
        ("169.254.169.254", 80, "metadata", 1),
        ("asked.example", None, "dns_denied", 2),
        ("front.example", 443, "sni_mismatch", 1),
    ]
    assert (draft.events, draft.cut) == (15, False)


def test_what_was_learnt_breaks_nothing_of_it(alice: Caller, acme: Tenant, box: Sandbox, wide: None) -> None:
    happened(acme, passed("a.example"), passed("b.example", 9000, "tcp"), passed("c.example", 80, "http"))

    draft = flows.learn(alice.actor, box.pk, window=DAY)
    actions.create_policy(actor=alice.actor, tenant=acme, name="learnt", body=draft.body)

    found = flows.replay(alice.actor, acme, policy="learnt", window=DAY)
    assert (found.broken, found.still_allowed) == ([], 3)


def test_a_sandbox_that_did_nothing_needs_nothing(alice: Caller, box: Sandbox) -> None:
    draft = flows.learn(alice.actor, box.pk, window=DAY)

    assert (draft.body["egress"], draft.body["dns"], draft.events, draft.left_out) == ([], False, 0, [])


def test_another_tenants_sandbox_is_not_found(mallory: Caller, box: Sandbox) -> None:
    for sandbox_id in (box.pk, "inothing"):
        with pytest.raises(NotFound):
            flows.learn(mallory.actor, sandbox_id, window=DAY)
