"""A token's rate and budget hold: what is under way is reserved, and settled by what it really cost."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from corekit import clock
from tenants.broker import redeeming
from tenants.broker.redeeming import Outcome, Reason, Refused
from tests.broker.tokenplace import Budget, Place, events, place

if TYPE_CHECKING:
    from datetime import datetime


pytestmark = pytest.mark.django_db
__all__ = ["place"]


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Let it be another time."""
    monkeypatch.setattr(clock, "now", lambda: moment)


def test_a_rate_lets_a_minutes_worth_through_at_once_and_then_one_by_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = place.issue(max_uses=None, requests_per_minute=3)
    start = clock.now()
    at(monkeypatch, start)
    for _ in range(3):
        place.redeem(text)
    with pytest.raises(Refused) as refused:
        place.redeem(text)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (429, Reason.RATE, 20)

    at(monkeypatch, start + timedelta(seconds=20, milliseconds=1))
    place.redeem(text)
    assert place.refused(text) == Reason.RATE
    assert {event.risk_score for event in events("token.refused")} == {None}


def test_a_budget_of_bytes_is_never_overspent_where_lengths_are_known(place: Place) -> None:
    text = place.issue(max_uses=None, budget=Budget(bytes_out=500))

    first = place.redeem(text, body_length=200)
    place.redeem(text, body_length=300)
    assert place.refused(text, body_length=1) == Reason.BUDGET
    redeeming.settle(first, Outcome(200, bytes_out=150))
    place.redeem(text, body_length=50)

    assert place.refused(text, body_length=1) == Reason.BUDGET
    token = place.token()
    assert (token.spent_bytes_out, token.reserved_bytes_out) == (150, 350)


def test_a_body_of_unknown_length_is_bounded_where_bytes_are_counted(place: Place) -> None:
    text = place.issue(max_uses=None, budget=Budget(bytes_out=500))
    grant = place.redeem(text, body_length=None)
    assert grant.max_body == 1024 * 1024
    assert place.refused(text, body_length=None) == Reason.BUDGET
    redeeming.settle(grant, Outcome(200, bytes_out=10))
    assert (place.token().spent_bytes_out, place.token().reserved_bytes_out) == (10, 0)


def test_a_budget_of_tokens_reserves_what_an_answer_may_cost_and_settles_what_it_did(place: Place) -> None:
    text = place.issue(max_uses=None, params={"max_tokens": 100}, budget=Budget(tokens=250))
    grants = [place.redeem(text) for _ in range(3)]
    with pytest.raises(Refused) as refused:
        place.redeem(text)
    assert (refused.value.status, refused.value.reason) == (429, Reason.BUDGET)
    assert refused.value.headers() == {"Should-Retry": "false"}

    for grant, usage in zip(grants, (10, 20, 30), strict=True):
        redeeming.settle(grant, Outcome(200, usage_tokens=usage))

    token = place.token()
    assert (token.spent_tokens, token.reserved_tokens) == (60, 0)
    place.redeem(text)


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (Outcome(200, usage_tokens=7), 7),
        (Outcome(200), 100),
        (Outcome(None, error="cut_off"), 100),
        (Outcome(500), 0),
        (Outcome(429), 0),
    ],
)
def test_an_answer_that_says_nothing_costs_what_was_expected(place: Place, outcome: Outcome, spent: int) -> None:
    text = place.issue(params={"max_tokens": 100}, budget=Budget(tokens=250))
    redeeming.settle(place.redeem(text), outcome)
    assert (place.token().spent_tokens, place.token().reserved_tokens) == (spent, 0)


def test_a_budget_in_dollars_goes_by_the_price_of_the_service(place: Place) -> None:
    place.service("llm")
    text = place.issue(
        service="llm",
        allow=[{"methods": ["POST"], "paths": ["/**"]}],
        max_uses=None,
        params={"max_tokens": 1000},
        budget=Budget(microusd=15_000),
    )
    grants = [place.redeem(text, service="llm") for _ in range(2)]
    assert place.refused(text, service="llm") == Reason.BUDGET
    redeeming.settle(grants[0], Outcome(200, usage_tokens=301))
    redeeming.settle(grants[1], Outcome(200, usd=0.004))
    assert (place.token().spent_microusd, place.token().reserved_microusd) == (3010 + 4000, 0)
