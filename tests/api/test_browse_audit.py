"""The audit over REST: a tenant's own events, every filter, and operators see all."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.api.serializers import AuditFilter
from audit.filters import NAMES
from audit.models import Event
from corekit import clock
from tests.api.rest import Operator, Rest

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db


def event(alice: Caller, number: int, **more: Any) -> Event:
    """Insert an event of Acme, some minutes ago."""
    made = Event(
        **{
            "tenant_id": alice.tenant.pk,
            "code": "command.start",
            "at": clock.now() - timedelta(minutes=number),
            "actor_kind": "api_key",
            "actor_id": "k1",
            "actor_name": "Agent",
            "object_type": "sandbox",
            "object_id": "i1",
            "phase": "result",
            **more,
        }
    )
    made.save()
    return made


def test_a_tenant_sees_its_own_events_newest_first(rest: Rest, alice: Caller, mallory: Caller) -> None:
    event(alice, 5)
    items = rest.get("audit-events")["items"]
    assert [one["code"] for one in items] == [
        *("apikey.created", "member.added", "tenant.created", "command.start"),
    ]
    assert {one["tenant"] for one in items} == {alice.tenant.pk.hex}
    assert rest.get(f"audit-events/{items[0]['id']}") == items[0]


def test_an_event_tells_who_did_what_with_which_risk(rest: Rest, alice: Caller) -> None:
    made = event(
        alice, 1, risk_score=70, risk_reasons=["reads secrets"], tool_name="exec", args_hash="ab" * 32, duration_ms=1.5
    )
    found = rest.get(f"audit-events/{made.pk}")
    assert found["message"] == "Agent started a command in i1."
    assert found["actor"] == {"kind": "api_key", "id": "k1", "name": "Agent"}
    assert found["object"] == {"type": "sandbox", "id": "i1"}
    assert (found["severity"], found["outcome"], found["phase"]) == ("info", "ok", "result")
    assert (found["risk_score"], found["risk_reasons"], found["duration_ms"]) == (70, ["reads secrets"], 1.5)


def test_a_sentence_is_filled_once(rest: Rest, alice: Caller) -> None:
    made = event(alice, 1, actor_name="{object} {actor}", object_id="{actor}")
    assert rest.get(f"audit-events/{made.pk}")["message"].startswith("{object} {actor} started")


def test_an_event_that_we_do_not_know_is_shown_all_the_same(rest: Rest, alice: Caller) -> None:
    made = event(alice, 1, code="newer.event")
    found = rest.get(f"audit-events/{made.pk}")
    assert (found["message"], found["severity"]) == ("newer.event", "info")


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("code=file.read", {2}),
        ("object_id=i2", {3}),
        ("object_type=file", {6}),
        ("actor_id=k2", {4}),
        ("outcome=refused", {5}),
        ("risk_at_least=50", {7, 8}),
        ("risk_at_least=80", {8}),
        ("phase=intent", {9}),
        ("code=file.read&actor_id=k2", set()),
        ("code=file.*", {2, 10}),
        ("actor=k2", {4}),
        ("actor=Bob", {10}),
        ("sandbox_id=i7", {11}),
        ("decision=deny", {11}),
        ("band=critical", {8}),
        ("band=medium", {12}),
        ("host=API.github.com.", {12}),
        ("token_id=t1", {12}),
        ("within=15m", set(range(1, 13))),
        ("within=15m&until=2020-01-01T00:00:00Z", set()),
    ],
)
def test_every_filter(rest: Rest, alice: Caller, query: str, numbers: set[int]) -> None:
    different: dict[int, dict[str, Any]] = {
        1: {},
        2: {"code": "file.read"},
        3: {"object_id": "i2"},
        4: {"actor_id": "k2"},
        5: {"outcome": "refused"},
        6: {"object_type": "file"},
        7: {"risk_score": 50},
        8: {"risk_score": 80, "risk_band": "critical"},
        9: {"phase": "intent"},
        10: {"code": "file.write", "actor_name": "Bob"},
        11: {"sandbox_id": "i7", "decision": "deny"},
        12: {"risk_score": 30, "risk_band": "medium", "host": "api.github.com", "token_id": "t1"},
    }
    made = {event(alice, number, **more).pk: number for number, more in different.items()}
    found = {one["id"] for one in rest.get(f"audit-events?{query}")["items"]}
    assert {number for pk, number in made.items() if pk in found} == numbers


def test_the_list_takes_the_filters_of_the_pages() -> None:
    assert set(AuditFilter().fields) - {"limit", "cursor", "order"} == set(NAMES)


def test_a_time_window(rest: Rest, alice: Caller) -> None:
    made = {number: event(alice, number) for number in (60, 120, 180)}
    since, until = made[120].at, made[60].at
    window = f"since={since.isoformat().replace('+', '%2B')}&until={until.isoformat().replace('+', '%2B')}"
    assert [one["id"] for one in rest.get(f"audit-events?{window}")["items"]] == [made[120].pk]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("outcome=fine", "outcome"),
        ("risk_at_least=101", "risk_at_least"),
        ("risk_at_least=-1", "risk_at_least"),
        ("since=yesterday", "since"),
        ("tenant_id=acme", "tenant_id"),
        ("order=random", "order"),
        ("code=%00", "code"),
        ("severity=info", "severity"),
    ],
)
def test_a_filter_that_is_wrong_is_named(rest: Rest, query: str, field: str) -> None:
    assert rest.refused("get", f"audit-events?{query}") == (400, "invalid_input", field)


def test_operators_see_all_or_one_tenants(olga: Operator, alice: Caller, mallory: Caller) -> None:
    whose = {one["tenant"] for one in olga.get("audit-events")["items"]}
    assert whose >= {alice.tenant.pk.hex, mallory.tenant.pk.hex}
    one = olga.get(f"audit-events?tenant_id={alice.tenant.pk.hex}")["items"]
    assert {event["tenant"] for event in one} == {alice.tenant.pk.hex}


def test_reading_needs_the_scope(bob: Caller, alice: Caller) -> None:
    key = Rest(alice.secret).post(f"tenants/{alice.tenant.pk.hex}/keys", {"name": "agent"}, status=201)["key"]
    assert Rest(key).refused("get", "audit-events") == (403, "forbidden", None)
    assert Rest(bob.secret).get("audit-events")["items"]


def test_an_operators_reading_is_an_event_that_the_tenant_sees(olga: Operator, rest: Rest, alice: Caller) -> None:
    [first, *_] = olga.get(f"audit-events?tenant_id={alice.tenant.pk.hex}&code=apikey.created")["items"]
    olga.get(f"audit-events/{first['id']}")
    olga.get("audit-events")

    reads = rest.get("audit-events?code=audit.read")["items"]
    assert [(one["actor"]["name"], one["details"]) for one in reads] == [
        ("olga", {"filters": ["id"]}),
        ("olga", {"filters": ["code", "tenant_id"]}),
    ]
    assert Event.objects.filter(code="audit.read", tenant_id=None).count() == 1


def test_a_tenants_own_reading_is_none(rest: Rest) -> None:
    rest.get("audit-events")
    assert not Event.objects.filter(code="audit.read").exists()
