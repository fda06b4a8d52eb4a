"""A token may say what the JSON of a request holds. What two readers could read in two ways is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenants.broker import bodyrules, redeeming
from tenants.broker.bodyrules import BrokenRule
from tenants.broker.redeeming import Reason, Refused
from tests.broker.tokenplace import Place, events, place, under_way

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["place"]

RULES: dict[str, Any] = {"model": ["gpt-4o-mini", "gpt-4o"], "max_tokens": 1000, "stream": False}
GOOD = {"model": "gpt-4o", "max_tokens": 1000, "messages": [{"role": "user", "content": "hello"}]}


def sent(**changes: Any) -> bytes:
    """Return the body of a request that keeps the rules but for some changes; None leaves a name out."""
    return json.dumps({name: value for name, value in (GOOD | changes).items() if value is not None}).encode()


@pytest.mark.parametrize(
    "body",
    [
        sent(),
        sent(model="gpt-4o-mini", max_tokens=1),
        sent(stream=False),
        sent(max_tokens=None, max_completion_tokens=1000),
        sent(max_tokens=None, max_output_tokens=10),
        sent(max_tokens=500, n=2),
        sent(messages=[{"MODEL": "anything", "content": "it is no business of ours what is deeper"}]),
        sent(temperature=0.5, user="ü€"),
        b" \r\n\t" + sent() + b"\n",
    ],
)
def test_a_body_that_keeps_the_rules_passes(body: bytes) -> None:
    bodyrules.check(RULES, body)


@pytest.mark.parametrize(
    "body",
    [
        sent(model="gpt-5-pro"),
        sent(model="gpt-4o "),
        sent(model="GPT-4o"),
        sent(model=["gpt-4o"]),
        sent(model={"$ne": 1}),
        sent(model=None),
        sent(max_tokens=1001),
        sent(max_tokens=None),
        sent(max_tokens="10"),
        sent(max_tokens=10.5),
        sent(max_tokens=-1),
        sent(max_tokens=True),
        sent(max_tokens=10**30),
        sent(max_tokens=1, max_completion_tokens=5000),
        sent(max_tokens=501, n=2),
        sent(max_tokens=10, n=0.5),
        sent(max_tokens=500, best_of=3),
        sent(stream=True),
        sent(stream="false"),
        sent(stream=0),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused(body: bytes) -> None:
    with pytest.raises(BrokenRule):
        bodyrules.check(RULES, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"model"',
        b"model=gpt-4o&max_tokens=1",
        sent()[:-1],
        sent() + b"{}",
        b'{"model": "gpt-4o", "max_tokens": 1, "model": "gpt-5-pro"}',
        b'{"model": "gpt-4o", "max_tokens": 1, "mod\\u0065l": "gpt-5-pro"}',
        b'{"model": "gpt-4o", "max_tokens": 1, "Model": "gpt-5-pro"}',
        b'{"model": "gpt-4o", "max_tokens": 1, "MAX_TOKENS": 100000}',
        '{"model": "gpt-4o", "max_tokens": 1, "\u017ftream": true}'.encode(),
        b'{"model": "gpt-4o", "max_tokens": 1, "model\\u0000x": "gpt-5-pro"}',
        b'{"model": "gpt-4o", "max_tokens": 1, "\\u200bmodel": "gpt-5-pro"}',
        b'{"model": "gpt-4o", "max_tokens": 1, "model ": "gpt-5-pro"}',
        b'{"model": "gpt-4o", "max_tokens": 1, "model\\ud800": "gpt-5-pro"}',
        b'{"model": "gpt-4o", "max_tokens": 1, "x": {"y": 1, "y": 2}}',
        b'{"model": "gpt-4o", "max_tokens": NaN}',
        b'{"model": "gpt-4o", "max_tokens": 1, "x": Infinity}',
        b'{"model": "gpt-4o", "max_tokens": 1, "x": "\xff"}',
        b'{"model": "gpt-4o", "max_tokens": 1e2}',
        b'{"model": "gpt-4o", "max_tokens": 0x10}',
        b"\xef\xbb\xbf" + sent(),
        sent().decode().encode("utf-16"),
        b'{"model": "gpt-4o", // a comment\n "max_tokens": 1}',
        b"\x1f\x8b\x08\x00" + b"\x00" * 40,
        b'{"x": ' + b"[" * 100_000,
        b'{"model": "gpt-4o", "max_tokens": ' + b"1" * 10_000 + b"}",
    ],
)
def test_a_body_that_can_be_read_in_two_ways_or_not_at_all_is_refused(body: bytes) -> None:
    with pytest.raises(BrokenRule):
        bodyrules.check(RULES, body)


@pytest.mark.parametrize(
    ("rules", "body", "passes"),
    [
        ({"stream": True}, {"stream": True}, True),
        ({"stream": True}, {}, False),
        ({"stream": True}, {"stream": False}, False),
        ({"model": ["a"]}, {"model": "a", "stream": True, "max_tokens": 10**6}, True),
        ({"max_tokens": 5}, {"max_tokens": 5, "model": "whatever"}, True),
        ({}, {"anything": 1}, True),
    ],
)
def test_only_what_a_rule_names_is_looked_at(rules: Mapping[str, Any], body: Mapping[str, Any], passes: bool) -> None:  # noqa: FBT001
    if passes:
        bodyrules.check(rules, json.dumps(body).encode())
    else:
        with pytest.raises(BrokenRule):
            bodyrules.check(rules, json.dumps(body).encode())


NAMES = st.sampled_from(["model", "Model", "max_tokens", "Max_Tokens", "max_completion_tokens", "n", "stream"])
VALUES = st.sampled_from(['"gpt-4o"', '"gpt-5-pro"', "1", "1001", "500", "2", "true", "false", '{"model": 1}'])


def escaped(name: str, places: set[int]) -> str:
    """Return a name as JSON with some of its letters escaped."""
    return "".join(f"\\u{ord(one):04x}" if place in places else one for place, one in enumerate(name))


PAIRS = st.tuples(NAMES, VALUES, st.sets(st.integers(0, 5), max_size=2))


@settings(max_examples=500)
@given(st.lists(PAIRS, min_size=1, max_size=3), st.integers(0, 3), st.integers(0, 4))
def test_whatever_passes_keeps_the_rules_for_every_kind_of_reader(
    pairs: list[tuple[str, str, set[int]]], model: int, length: int
) -> None:
    # What keeps the rules, somewhere among what may break them.
    pairs.insert(model, ("model", '"gpt-4o"', set()))
    pairs.insert(length, ("max_tokens", "500", set()))
    body = "{" + ", ".join(f'"{escaped(name, places)}": {value}' for name, value, places in pairs) + "}"
    try:
        bodyrules.check(RULES, body.encode())
    except BrokenRule:
        return
    found = [(name, json.loads(value)) for name, value, _ in pairs]
    folded = [(name.lower(), value) for name, value in found]
    for reading in (dict(found), dict(found[::-1]), dict(folded), dict(folded[::-1])):
        assert reading["model"] in RULES["model"]
        assert reading.get("stream", False) is False
        lengths = [reading[name] for name in ("max_tokens", "max_completion_tokens") if name in reading]
        assert 0 <= max(lengths) * reading.get("n", 1) <= RULES["max_tokens"]


@pytest.mark.django_db
def test_a_body_that_is_refused_uses_nothing_up_and_is_recorded(place: Place) -> None:
    text = place.issue(params=RULES)
    grant = place.redeem(text)
    assert grant.params == RULES

    with pytest.raises(Refused) as refused:
        redeeming.check_body(grant, sent(model="gpt-5-pro"))

    assert (refused.value.status, refused.value.code, refused.value.reason) == (401, "token_refused", Reason.BODY_RULE)
    assert (place.token().uses, under_way()) == (0, 0)
    (event,) = events("token.refused")
    assert (event.reason, event.risk_score) == ("body_rule", 40)
    assert "gpt-5-pro" not in str(event.details)
    redeeming.check_body(place.redeem(text), sent())
