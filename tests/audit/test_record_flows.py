"""What the way out reports becomes events with host and policy, a risk, and levels like those of any other act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit import judging, registry
from audit.models import Event, RiskLevel, RiskPolicy, Verdict
from audit.recording import record_node_events
from corekit import clock, ids

if TYPE_CHECKING:
    from tenants.models import Tenant

pytestmark = pytest.mark.django_db

BEGUN_MS = clock.to_ms(clock.now()) - 60_000


def flow(
    code: str, host: str | None, after_ms: int = 0, reason: str | None = None, **details: object
) -> dict[str, Any]:
    allowed = code in {"egress.closed", "egress.opened"}
    return {
        "id": ids.new_event_id(),
        "seq": 1,
        "at": BEGUN_MS + after_ms,
        "node_id": "node-1",
        "sandbox": "i1",
        "generation": 1,
        "tier": "container",
        "code": code,
        "phase": "fact",
        "decision": "allow" if allowed else "deny",
        "reason": reason,
        "outcome": "ok" if allowed else "refused",
        "duration_ms": 3.5,
        "details": {"host": host, "port": 443, "policy_version": 7, "via": "transparent", **details},
    }


def record(tenant: Tenant, *flows: dict[str, Any]) -> list[Event]:
    record_node_events([(one, tenant.pk) for one in flows])
    return [Event.objects.get(pk=one["id"]) for one in flows]


def test_a_refusal_says_where_to_and_why(acme: Tenant) -> None:
    (event,) = record(acme, flow("egress.denied", "evil.example", reason="no_rule", rule=None, layer="tenant"))

    assert (event.tenant_id, event.sandbox_id, event.object_type) == (acme.pk, "i1", "sandbox")
    assert (event.host, event.policy_version, event.decision, event.outcome) == (
        *("evil.example", "7"),
        *("deny", "refused"),
    )
    assert (event.reason, event.details["layer"], event.duration_ms) == ("no_rule", "tenant", 3.5)
    assert (event.risk_score, event.risk_band) == (None, "")
    assert registry.severity_of(event.code, event.reason) == "warning"


def test_what_was_let_through_says_how_much(acme: Tenant) -> None:
    (event,) = record(acme, flow("egress.closed", "a.example", bytes_in=10, bytes_out=20, address="45.79.0.1"))

    assert (event.decision, event.details["bytes_out"], event.details["address"]) == ("allow", 20, "45.79.0.1")
    assert event.risk_score is None


def test_a_secret_that_was_sent_elsewhere_is_grave_and_raises_levels(acme: Tenant) -> None:
    RiskPolicy.objects.create(tenant_id=acme.pk, flag_at=80)
    sent = flow("secret.exfil_attempt", "evil.example", reason="secret_elsewhere", secret_name="key", place="body")

    (event,) = record(acme, sent)

    assert (event.host, event.decision, event.risk_score) == ("evil.example", "deny", 85)
    assert (event.details["secret_name"], event.risk_reasons) == ("key", ["flow.secret_elsewhere"])
    assert registry.severity_of(event.code, event.reason) == "critical"
    assert round(RiskLevel.objects.get(kind=judging.SANDBOX, subject_id="i1").score) == 85
    assert Verdict.objects.get().event_id == event.pk


def test_a_metadata_probe_is_grave_and_raises_levels(acme: Tenant) -> None:
    RiskPolicy.objects.create(tenant_id=acme.pk, flag_at=75)

    (event,) = record(acme, flow("egress.denied", "169.254.169.254", reason="metadata"))

    assert (event.risk_score, event.risk_band, event.risk_reasons) == (85, "critical", ["flow.metadata"])
    assert registry.severity_of(event.code, event.reason) == "critical"
    level = RiskLevel.objects.get(kind=judging.SANDBOX, subject_id="i1")
    assert (round(level.score), level.rules) == (85, ["flow.metadata"])
    assert Verdict.objects.get().event_id == event.pk


def test_wrong_hosts_are_counted_over_deliveries(acme: Tenant) -> None:
    first = [flow("egress.denied", f"h{n}.example", n, "no_rule") for n in range(6)]
    record(acme, *first)

    rest = record(acme, *[flow("egress.denied", f"h{n}.example", n, "no_rule") for n in range(6, 12)])

    assert [event.risk_reasons for event in rest] == [[], [], [], ["flow.wrong_hosts"], [], []]


def test_another_sandboxes_hosts_do_not_count(acme: Tenant) -> None:
    record(acme, *[flow("egress.denied", f"h{n}.example", n, "no_rule") | {"sandbox": "i2"} for n in range(9)])

    (event,) = record(acme, flow("egress.denied", "h9.example", 9, "no_rule"))

    assert event.risk_score is None


def test_a_delivery_that_comes_again_counts_once(acme: Tenant) -> None:
    flows = [flow("egress.denied", f"h{n}.example", n, "no_rule") for n in range(9)]
    record(acme, *flows)
    record(acme, *flows)

    assert Event.objects.filter(code="egress.denied").count() == 9
    assert not Event.objects.exclude(risk_score=None).exists()


def test_steady_sending_is_found_in_the_ledger(acme: Tenant) -> None:
    size = 8 * 1024 * 1024
    for number in range(7):
        record(acme, flow("egress.closed", "drop.example", number, bytes_in=1, bytes_out=size))

    (event,) = record(acme, flow("egress.closed", "drop.example", 8, bytes_in=1, bytes_out=size))

    assert event.risk_reasons == ["flow.sends_much"]


@pytest.mark.parametrize("details", [{"count": "many"}, {"port": "x"}, {"bytes_out": -1}, {"host": "x" * 5000}])
def test_details_of_another_form_do_no_harm(acme: Tenant, details: dict[str, Any]) -> None:
    event = flow("egress.denied", "a.example", reason="metadata")
    event["details"] |= details

    (row,) = record(acme, event)

    assert (row.code, row.risk_reasons, len(row.host) <= 255) == ("egress.denied", ["flow.metadata"], True)
