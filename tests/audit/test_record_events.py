"""What is done is written down once, in the same transaction, without secrets, and never changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.db import transaction

from audit import registry
from audit.models import Event, ImmutableError
from audit.recording import MAX_DETAILS_BYTES, record
from audit.registry import UnknownCodeError
from audit.risk.findings import Finding, Span
from audit.risk.scoring import combine
from corekit import tokens, tracing
from corekit.actor import SYSTEM
from corekit.fingerprint import arguments_hash

if TYPE_CHECKING:
    from corekit.actor import Actor
    from tenants.models import Tenant
    from tests.people import Person


def killed(person: Person, **more: Any) -> Event:
    options: dict[str, Any] = {
        "actor": person.actor,
        "object_type": "sandbox",
        "object_id": "i1",
        "tenant_id": person.tenant.id.hex,
    }
    return record("sandbox.killed", **options | more)


def test_who_what_where_and_how(bob: Person) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    written = killed(bob, outcome="error", details={"reason": "killed"}, at=at)
    event = Event.objects.get(pk=written.pk)
    assert (event.code, event.object_type, event.object_id) == ("sandbox.killed", "sandbox", "i1")
    assert (event.actor_kind, event.actor_id, event.actor_name) == ("user", bob.actor.id, "Bob")
    assert (event.tenant_id, event.origin, event.outcome) == (bob.tenant.id, "203.0.113.7", "error")
    assert (event.at, event.phase, event.details) == (at, "fact", {"reason": "killed"})


def test_what_is_known_of_the_request_is_copied(bob: Person) -> None:
    trace = tracing.begin("request-0001", f"00-{'a' * 32}-{'b' * 16}-01", "curl/8.0\x00")
    try:
        event = Event.objects.get(pk=killed(bob, actor=proven(bob.actor), tier="container", status=200).pk)
    finally:
        tracing.end()
    assert (event.producer, event.producer_seq) == ("shell", None)
    assert (event.trace_id, event.span_id, event.request_id) == ("a" * 32, trace.span_id, "request-0001")
    assert (event.actor_auth, event.token_id, event.on_behalf_of) == ("session", "t-1", "carol")
    assert (event.user_agent, event.sandbox_id, event.tier, event.status) == ("curl/8.0", "i1", "container", 200)
    assert event.received_at == event.at


def proven(actor: Actor) -> Actor:
    """Return an actor of whom more is known."""
    return replace(actor, auth="session", token_id="t-1", on_behalf_of="carol", request_id=None)


def test_outside_a_request_there_is_no_trace(bob: Person) -> None:
    event = Event.objects.get(pk=killed(bob).pk)
    assert (event.trace_id, event.span_id, event.user_agent) == ("", "", "")


def test_a_refused_act_was_denied(bob: Person) -> None:
    event = killed(bob, outcome="refused", details={"reason": "killed"})
    assert (event.decision, event.reason) == ("deny", "killed")
    assert killed(bob).decision == ""
    assert killed(bob, decision="allow", reason="by rule 7").reason == "by rule 7"


def test_an_assessment_is_kept_with_its_reasons(bob: Person) -> None:
    light = Finding("py.import.unknown", "Unknown import", "capability", 10, "L1", "import numpy", None, "import numpy")
    heavy = Finding("py.exec", "Runs text", "capability", 60, "L3", "exec()", Span(1, 0, 1, 7, 0, 7), "exec(x)")
    assessment = combine("python", [light, heavy, heavy])
    event = Event.objects.get(
        pk=killed(bob, assessment=assessment, seed={"score": 30, "tier": "L2", "reasons": ["x"]}).pk
    )
    assert (event.risk_score, event.risk_band, event.risk_tier) == (64, "high", "L3")
    assert (event.risk_ruleset, event.risk_reasons) == (assessment.ruleset, ["py.exec", "py.import.unknown"])
    assert event.risk_findings[0] == heavy.as_dict() | {"snippet": "", "message": ""}
    assert "exec(x)" not in str(vars(event))
    assert event.risk_seed == {"score": 30, "tier": "L2", "reasons": ["x"]}


def test_a_score_without_findings_has_its_band(bob: Person) -> None:
    event = killed(bob, risk=(50, "It asked twice."))
    assert (event.risk_score, event.risk_band, event.risk_reasons) == (50, "high", ["It asked twice."])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (2**53, "9007199254740992"),
        (-(2**60), "-1152921504606846976"),
        (1e300, "1e+300"),
        (0.1, 0.1),
        ("\ud800", "?"),
        ({"\ud800": ("a", 1)}, {"?": ["a", 1]}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (object, str(object)),
    ],
)
def test_what_no_canonical_form_can_carry_is_made_harmless(bob: Person, given: object, kept: object) -> None:
    event = killed(bob, details={"reason": given})
    assert event.details == {"reason": kept}
    assert Event.objects.get(pk=event.pk).details == {"reason": kept}


def test_arguments_are_kept_as_hash_and_shape_only(bob: Person) -> None:
    arguments = {"timeout": 300, "env": {"API_TOKEN": "hunter2"}}
    event = killed(bob, arguments=arguments)
    key = tokens.audit_key(settings.GATEHOUSE.seed(), bob.tenant.id.hex, event.args_key_id)
    assert event.args_hash == arguments_hash(key, arguments)
    assert event.args_key_id == str(event.received_at.year)
    assert event.args_size == len('{"env":{"API_TOKEN":"hunter2"},"timeout":300}')
    assert "hunter2" not in str(vars(Event.objects.get(pk=event.pk)))


def test_tenants_hash_the_same_arguments_differently(bob: Person, mallory: Person) -> None:
    assert killed(bob, arguments={"a": 1}).args_hash != killed(mallory, arguments={"a": 1}).args_hash


def test_details_lose_their_secrets(bob: Person) -> None:
    key = "e2b_" + "0a" * 20
    event = killed(bob, details={"reason": {"password": "hunter2", "text": f"with {key}", "nul": "a\x00b"}})
    stored = str(Event.objects.get(pk=event.pk).details)
    assert "hunter2" not in stored
    assert key not in stored
    assert "\x00" not in stored


def test_details_are_bounded(bob: Person) -> None:
    event = killed(bob, details={"reason": "x" * MAX_DETAILS_BYTES})
    assert Event.objects.get(pk=event.pk).details == {"truncated": True}


def test_an_act_that_fails_leaves_no_row(bob: Person) -> None:
    def act() -> None:
        with transaction.atomic():
            killed(bob)
            raise RuntimeError

    before = Event.objects.count()
    with pytest.raises(RuntimeError):
        act()
    assert Event.objects.count() == before


def test_the_platform_acts_without_a_tenant(db: None) -> None:
    event = record(
        "node.lost", actor=SYSTEM, object_type="node", object_id="n1", tenant_id=None, arguments={"node": "n1"}
    )
    assert Event.objects.get(pk=event.pk).tenant_id is None
    assert len(event.args_hash) == 64


def test_unknown_codes_and_details_are_our_mistake(bob: Person) -> None:
    with pytest.raises(UnknownCodeError, match=r"sandbox\.exploded"):
        record("sandbox.exploded", actor=SYSTEM, object_type="sandbox", object_id="i1", tenant_id=None)
    with pytest.raises(UnknownCodeError, match="'colour'"):
        killed(bob, details={"colour": "red"})
    with pytest.raises(ValueError, match="maybe"):
        killed(bob, outcome="maybe")
    assert not Event.objects.filter(object_type="sandbox").exists()


def test_rows_are_never_changed_or_deleted(bob: Person) -> None:
    event = killed(bob)
    event.outcome = "error"
    for attempt in (
        event.save,
        event.delete,
        Event.objects.all().delete,
        lambda: Event.objects.update(outcome="error"),
    ):
        with pytest.raises(ImmutableError):
            attempt()
    assert Event.objects.get(pk=event.pk).outcome == "ok"


def test_every_tenant_sees_its_own(bob: Person, mallory: Person, acme: Tenant) -> None:
    event = killed(bob)
    assert Event.objects.visible_to(bob.actor).filter(pk=event.pk).exists()
    assert {row.tenant_id for row in Event.objects.visible_to(bob.actor)} == {acme.id}
    assert not Event.objects.visible_to(mallory.actor).filter(pk=event.pk).exists()
    assert Event.objects.visible_to(SYSTEM).filter(pk=event.pk).exists()


def test_every_code_has_a_sentence_and_a_severity() -> None:
    codes = registry.all_codes()
    assert len(codes) > 40
    for entry in codes:
        assert entry.sentence.endswith(".")
        assert entry.severity in {"info", "notice", "warning", "critical"}
        entry.sentence.format(actor="Bob", object="i1")
