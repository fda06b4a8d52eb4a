"""Two hundred uses of one token at the same moment: just as many count as it is good for, on either database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from corekit import clock
from tenants.broker import actions, redeeming
from tenants.broker.redeeming import Grant, Outcome, Refused
from tenants.tokenmodels import TokenEnd
from tests.broker.tokenplace import ALICE, BOB, CHAT, Budget, Place, events, place, under_way
from tests.sandboxes.fixtures import at_once

if TYPE_CHECKING:
    from tenants.broker.redeeming import Caller

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["place"]


def use(text: str, caller: Caller = ALICE) -> Grant | str:
    """Return what a use gets, or why it is refused."""
    try:
        return redeeming.redeem(text, caller, CHAT)
    except Refused as refused:
        return str(refused.reason)


def refusals(found: list[Grant | str]) -> Counter[str]:
    return Counter(one for one in found if isinstance(one, str))


def granted(found: list[Grant | str]) -> list[Grant]:
    return [one for one in found if isinstance(one, Grant)]


def test_two_hundred_uses_of_a_one_time_token_are_one_grant(place: Place) -> None:
    text = place.issue()

    found = at_once(200, lambda _: use(text))

    assert len(granted(found)) == 1
    assert refusals(found) == {"used_up": 199}
    assert (place.token().uses, under_way()) == (1, 1)
    rows = Event.objects.filter(code="token.reused")
    assert (rows.count(), set(rows.values_list("reason", flat=True))) == (199, {"used_up"})


def test_of_those_that_race_for_seven_uses_seven_have_one(place: Place) -> None:
    text = place.issue(max_uses=7)
    found = at_once(60, lambda number: use(text, BOB if number % 3 == 0 else ALICE))
    assert (len(granted(found)), place.token().uses) == (7, 7)
    assert refusals(found) == {"other_sandbox": 20, "used_up": 33}


def test_uses_that_race_with_a_revocation_all_count_before_it_or_not_at_all(place: Place) -> None:
    text = place.issue(max_uses=None)

    def act(number: int) -> Grant | str | None:
        if number != 20:
            return use(text)
        actions.end_of_sandbox("ialice", reason=TokenEnd.RISK)
        return None

    found = [one for one in at_once(40, act, threads=40) if one is not None]

    ended = place.token().ended_at
    assert ended is not None
    assert len(granted(found)) == place.token().uses == under_way()
    assert refusals(found) == {"voided": 39 - len(granted(found))}
    assert use(text) == "voided"


def test_streams_at_the_same_time_overspend_by_one_reservation_at_most(place: Place) -> None:
    text = place.issue(max_uses=None, params={"max_tokens": 100}, budget=Budget(tokens=450))

    def stream(_: int) -> Grant | str:
        grant = use(text)
        if isinstance(grant, Grant):
            redeeming.settle(grant, Outcome(200, usage_tokens=100))
        return grant

    found = at_once(50, stream, threads=25)

    token = place.token()
    assert (len(granted(found)), refusals(found)) == (5, {"budget": 45})
    assert (token.spent_tokens, token.reserved_tokens, under_way()) == (500, 0, 0)
    assert len(events("token.redeemed")) == 5


def test_a_rate_holds_however_many_come_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    text = place.issue(max_uses=None, requests_per_minute=6)
    found = at_once(30, lambda _: use(text), threads=30)
    assert (len(granted(found)), refusals(found)) == (6, {"rate": 24})


def test_a_use_is_settled_or_undone_once(place: Place) -> None:
    grant = use(place.issue(max_uses=3))
    assert isinstance(grant, Grant)

    def end(number: int) -> None:
        if number % 2:
            redeeming.settle(grant, Outcome(200, usage_tokens=5))
        else:
            redeeming.refund(grant)

    at_once(20, end, threads=20)

    assert under_way() == 0
    assert len(events("token.redeemed")) + len(events("token.refused")) == 1
    assert place.token().uses == len(events("token.redeemed"))
