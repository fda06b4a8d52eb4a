"""Code in a sandbox uses a token: the broker gets the secret for just what the token is good for, and says so."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from corekit import clock
from tenants import quota
from tenants.broker import actions, redeeming
from tenants.broker.redeeming import Caller, Outcome, Reason
from tenants.tokenmodels import ScopedToken
from tests.broker.tokenplace import ALICE, BOB, KEY, MALLORY, Budget, Place, events, place, under_way

if TYPE_CHECKING:
    from datetime import datetime

    from tests.people import Person

pytestmark = pytest.mark.django_db
__all__ = ["place"]

TWICE: dict[str, Any] = {"max_uses": 2}


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Let it be another time."""
    monkeypatch.setattr(clock, "now", lambda: moment)


def test_it_gives_the_secret_to_the_broker_once(place: Place) -> None:
    text = place.issue()

    grant = place.redeem(text)

    assert (grant.secret.reveal(), grant.service.base_url) == (KEY.encode(), "https://api.openai.com")
    assert (grant.tenant_id, grant.params, grant.max_body) == (place.tenant.pk, {}, 64 * 1024 * 1024)
    assert (place.token().uses, under_way()) == (1, 1)
    assert KEY not in repr(grant)


def test_each_use_is_an_event_once_it_is_over(place: Place) -> None:
    grant = place.redeem(place.issue())
    assert events("token.redeemed") == []

    redeeming.settle(grant, Outcome(200, bytes_in=900, bytes_out=200, usage_tokens=42))
    redeeming.settle(grant, Outcome(200, bytes_in=900, bytes_out=200, usage_tokens=42))

    (used,) = events("token.redeemed")
    assert (used.tenant_id, used.sandbox_id, used.generation) == (place.tenant.pk, "ialice", 1)
    assert (used.object_type, used.object_id, used.token_id) == ("scoped_token", grant.token_id, grant.token_id)
    assert (used.actor_id, used.on_behalf_of, used.outcome, used.status) == ("broker", "ialice", "ok", 200)
    assert used.details.pop("duration_ms") >= 0  # type: ignore[operator]
    assert used.details == {
        "service": "openai",
        "method": "POST",
        "path": "/v1/chat/completions",
        "secret_name": "openai-key",
        "bytes_in": 900,
        "bytes_out": 200,
        "usage": 42,
        "microusd": 0,
    }
    assert (used.risk_score, under_way()) == (None, 0)


def test_a_one_time_token_is_good_once_and_a_second_use_is_a_finding(place: Place) -> None:
    text = place.issue()
    place.redeem(text)

    assert place.refused(text) == Reason.USED_UP

    (again,) = events("token.reused")
    assert (again.reason, again.outcome, again.decision, again.risk_score) == ("used_up", "refused", "deny", 65)
    assert (again.risk_band, again.risk_reasons) == ("high", ["token.reused"])
    assert (again.sandbox_id, again.object_id) == ("ialice", place.token().pk)
    assert again.details == {
        "service": "openai",
        "method": "POST",
        "path": "/v1/chat/completions",
        "issued_for": "ialice",
    }
    assert (place.token().uses, events("token.refused")) == (1, [])


def test_a_token_for_several_uses_is_used_up_without_a_finding_of_reuse(place: Place) -> None:
    text = place.issue(**TWICE)
    place.redeem(text)
    place.redeem(text)

    assert place.refused(text) == Reason.USED_UP
    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score) == ("used_up", None)


def test_a_token_without_a_limit_is_good_again_and_again(place: Place) -> None:
    text = place.issue(max_uses=None)
    for _ in range(5):
        place.redeem(text)
    assert place.token().uses == 5


# --- where and when


@pytest.mark.parametrize(
    ("caller", "reason", "score"),
    [
        (BOB, Reason.OTHER_SANDBOX, 80),
        (Caller("ialice", 2), Reason.OTHER_GENERATION, 45),
        (Caller(run="run-1"), Reason.OTHER_SANDBOX, 80),
        (Caller("ialice", 1, "run-1"), Reason.OTHER_SANDBOX, 80),
        (Caller(), Reason.OTHER_SANDBOX, 80),
    ],
)
def test_it_is_good_only_where_it_was_issued_for(place: Place, caller: Caller, reason: Reason, score: int) -> None:
    text = place.issue()

    assert place.refused(text, caller) == reason

    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score) == (reason, score)
    assert (refused.tenant_id, refused.sandbox_id) == (place.tenant.pk, caller.sandbox_id)
    assert refused.details["issued_for"] == "ialice"
    assert (place.token().uses, under_way()) == (0, 0)
    place.redeem(text)


def test_each_tenant_hears_its_own_half_of_a_token_that_was_carried_away(place: Place, mallory: Person) -> None:
    quota.reserve(tenant_id=mallory.tenant.pk, sandbox_id="imallory", amounts=quota.Amounts())

    assert place.refused(place.issue(), MALLORY) == Reason.OTHER_SANDBOX

    theirs, ours = sorted(events("token.refused"), key=lambda event: event.tenant_id == place.tenant.pk)
    assert (theirs.tenant_id, theirs.sandbox_id, theirs.object_id) == (mallory.tenant.pk, "imallory", "imallory")
    assert (ours.tenant_id, ours.sandbox_id, ours.object_id) == (place.tenant.pk, "", place.token().pk)
    assert "ialice" not in str(theirs.details) + theirs.token_id + theirs.on_behalf_of
    assert "imallory" not in str(ours.details) + ours.on_behalf_of
    assert (theirs.risk_score, ours.risk_score) == (80, 80)


def test_a_token_of_a_run_is_good_for_that_run(place: Place) -> None:
    run = Caller(run="run-1")
    text = place.issue(caller=run)

    assert place.refused(text, Caller(run="run-2")) == Reason.OTHER_SANDBOX
    assert place.refused(text, ALICE) == Reason.OTHER_SANDBOX
    assert place.redeem(text, run).secret.reveal() == KEY.encode()


def test_it_is_good_up_to_the_microsecond_before_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = place.issue(max_uses=None, expires_in_s=300)
    end = place.token().expires_at

    at(monkeypatch, end - timedelta(microseconds=1))
    place.redeem(text)
    for late in (timedelta(), timedelta(microseconds=1), timedelta(days=1)):
        at(monkeypatch, end + late)
        assert place.refused(text) == Reason.EXPIRED
    assert [event.reason for event in events("token.refused")] == ["expired"] * 3


def test_it_is_good_from_its_beginning_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = place.issue(max_uses=None, starts_in_s=60, expires_in_s=10)
    start = place.token().not_before

    assert place.refused(text) == Reason.NOT_YET
    at(monkeypatch, start - timedelta(microseconds=1))
    assert place.refused(text) == Reason.NOT_YET
    at(monkeypatch, start)
    place.redeem(text)
    at(monkeypatch, start + timedelta(seconds=10))
    assert place.refused(text) == Reason.EXPIRED


# --- crashes


def test_a_use_whose_process_died_is_settled_by_what_it_reserved(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.redeem(place.issue(params={"max_tokens": 100}, budget=Budget(tokens=250)))
    assert redeeming.settle_lost() == 0

    at(monkeypatch, clock.now() + timedelta(seconds=redeeming.LONGEST_CALL_S + 1))
    assert (redeeming.settle_lost(), redeeming.settle_lost()) == (1, 0)

    (used,) = events("token.redeemed")
    assert (used.outcome, used.reason, used.details["usage"], used.sandbox_id) == (
        "error",
        "interrupted",
        100,
        "ialice",
    )
    assert (place.token().spent_tokens, place.token().reserved_tokens, under_way()) == (100, 0, 0)


def test_rows_of_tokens_are_kept_for_a_month(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.issue()
    end = place.token().expires_at
    at(monkeypatch, end + timedelta(days=30))
    assert actions.forget_old() == 0
    at(monkeypatch, end + timedelta(days=30, seconds=1))
    assert actions.forget_old() == 1
    assert not ScopedToken.everywhere().exists()
