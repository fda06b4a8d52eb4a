"""A program that asks in a loop fills no ledger: its refusals are written down up to a number, then counted."""

from __future__ import annotations

import pytest

from tenants.broker import flooding, noting, redeeming
from tenants.broker.flooding import MOST, WINDOW_S, Refusals
from tenants.broker.redeeming import Reason, Refused
from tests.broker.tokenplace import BOB, KEY, Place, events, place

__all__ = ["place"]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, in seconds, by which refusals are counted."""
    time = [1000.0]
    monkeypatch.setattr(noting, "_refusals", Refusals(lambda: time[0]))
    return time


def test_all_are_written_up_to_the_number() -> None:
    refusals = Refusals(lambda: 0.0)
    assert [refusals.one_more("ialice") for _ in range(MOST)] == [0] * MOST
    assert [refusals.one_more("ialice") for _ in range(3)] == [None] * 3
    assert refusals.one_more("ibob") == 0


def test_those_that_were_not_are_counted_by_the_next() -> None:
    time = [0.0]
    refusals = Refusals(lambda: time[0])
    for _ in range(MOST + 7):
        refusals.one_more("ialice")
    time[0] = 20.0
    assert refusals.wait_s("ialice") == 40
    time[0] = WINDOW_S
    assert [refusals.one_more("ialice") for _ in range(2)] == [7, 0]


def test_callers_that_are_long_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flooding, "_MOST_CALLERS", 10)
    time = [0.0]
    refusals = Refusals(lambda: time[0])
    for number in range(10):
        refusals.one_more(f"i{number}")
    time[0] = WINDOW_S
    refusals.one_more("ialice")
    assert list(refusals._windows) == ["ialice"]


@pytest.mark.django_db
def test_a_flood_is_refused_without_a_word_in_the_ledger_until_it_is_over(
    place: Place, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flooding, "MOST", 5)
    text = place.issue(max_uses=None)
    for _ in range(5):
        assert place.refused("nonsense") == Reason.MALFORMED
    for _ in range(4):
        with pytest.raises(Refused) as refused:
            place.redeem("nonsense")
        assert (refused.value.status, refused.value.retry_after) == (429, 60)
    assert len(events("token.refused")) == 5
    # What its token is good for, it goes on getting; and nobody else notices.
    assert place.redeem(text).secret.reveal() == KEY.encode()
    assert place.refused("nonsense", BOB) == Reason.MALFORMED

    now[0] += WINDOW_S
    place.refused("nonsense")

    *_, last = events("token.refused")
    assert (last.sandbox_id, last.details["unwritten"]) == ("ialice", 4)


@pytest.mark.django_db
def test_bodies_that_break_a_rule_are_counted_with_them(
    place: Place, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flooding, "MOST", 5)
    text = place.issue(params={"stream": False})
    for _ in range(9):
        with pytest.raises(Refused):
            redeeming.check_body(place.redeem(text), b"{}x")
    assert ([event.reason for event in events("token.refused")], place.token().uses) == (["body_rule"] * 5, 0)
