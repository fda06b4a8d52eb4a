"""Analysts see what the judgement led to, and say with a note where it does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event, Verdict
from corekit.ids import new_event_id
from tests.api.rest import Rest
from tests.sandboxes.fixtures import caller

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db


def judged(whose: Caller, **changes: Any) -> Verdict:
    """Return a verdict that waits to pause a sandbox."""
    values: dict[str, Any] = {
        "tenant_id": whose.tenant.pk,
        "event_id": new_event_id(),
        "sandbox_id": "i1",
        "generation": 1,
        "action": "pause",
        "score": 90,
        "threshold": 80,
        "reasons": ["sh.rule"],
    }
    return Verdict.objects.create(**values | changes)


def test_list_them(rest: Rest, alice: Caller, mallory: Caller) -> None:
    pause, flag = judged(alice), judged(alice, action="flag", state="done", sandbox_id="i2")
    judged(mallory)
    assert [one["id"] for one in rest.get("verdicts")["items"]] == [flag.pk, pause.pk]
    assert [one["id"] for one in rest.get("verdicts?state=pending")["items"]] == [pause.pk]
    assert [one["id"] for one in rest.get("verdicts?action=flag")["items"]] == [flag.pk]
    assert [one["id"] for one in rest.get("verdicts?sandbox_id=i2")["items"]] == [flag.pk]
    assert [one["id"] for one in rest.get(f"verdicts?event_id={pause.event_id}")["items"]] == [pause.pk]
    shown = rest.get("verdicts?sandbox_id=i1")["items"][0]
    assert (shown["score"], shown["threshold"], shown["reasons"]) == (90, 80, ["sh.rule"])


def test_override_one_with_a_note(rest: Rest, alice: Caller) -> None:
    verdict = judged(alice)
    found = rest.post(f"verdicts/{verdict.pk}/override", {"note": "A drill."})
    assert (found["state"], found["note"], found["decided_by"]) == ("overridden", "A drill.", alice.key.pk)
    event = Event.objects.get(code="risk.overridden")
    assert (event.object_id, event.sandbox_id, event.tenant_id) == (verdict.pk, "i1", alice.tenant.pk)
    assert event.details == {
        "action": "pause",
        "state": "pending",
        "note": "A drill.",
        "event": verdict.event_id,
        "sandbox": "i1",
    }


@pytest.mark.parametrize("body", [{}, {"note": ""}, {"note": "  "}, {"note": "x" * 1001}])
def test_refuse_without_a_note(rest: Rest, alice: Caller, body: dict[str, Any]) -> None:
    verdict = judged(alice)
    assert rest.refused("POST", f"verdicts/{verdict.pk}/override", body) == (400, "invalid_input", "note")
    verdict.refresh_from_db()
    assert verdict.state == "pending"
    assert not Event.objects.filter(code="risk.overridden").exists()


def test_refuse_a_second_time(rest: Rest, alice: Caller) -> None:
    path = f"verdicts/{judged(alice).pk}/override"
    rest.post(path, {"note": "A drill."})
    assert rest.refused("POST", path, {"note": "Again."})[:2] == (409, "conflict")
    assert Verdict.objects.get().note == "A drill."


def test_refuse_who_may_only_look(alice: Caller) -> None:
    verdict = judged(alice)
    reader = Rest(caller(alice.tenant, "rita", ["risk:read"]).secret)
    assert reader.refused("POST", f"verdicts/{verdict.pk}/override", {"note": "x"})[:2] == (403, "forbidden")
    assert len(reader.get("verdicts")["items"]) == 1


def test_another_tenants_verdict_is_not_there(mallorys_rest: Rest, alice: Caller) -> None:
    verdict = judged(alice)
    for other in (verdict.pk, "x", new_event_id()):
        assert mallorys_rest.refused("POST", f"verdicts/{other}/override", {"note": "x"})[:2] == (404, "not_found")
    verdict.refresh_from_db()
    assert verdict.state == "pending"
