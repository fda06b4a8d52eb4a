"""A token is good for just the calls that it names: no other service, method, path, encoding, kind or size."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.broker import calls
from tenants.broker.redeeming import Asked, Reason
from tests.broker.tokenplace import Place, events, place, under_way

pytestmark = pytest.mark.django_db
__all__ = ["place"]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"service": "anthropic"}, Reason.SERVICE),
        ({"service": "OpenAI"}, Reason.SERVICE),
        ({"method": "GET"}, Reason.METHOD),
        ({"method": "post"}, Reason.METHOD),
        ({"segments": ("v1", "models")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions", "")}, Reason.PATH),
        ({"segments": ("", "v1", "chat", "completions")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions", "..")}, Reason.PATH),
        ({"segments": ("v1", "x", "..", "chat", "completions")}, Reason.PATH),
        ({"segments": ("v1", "chat%2fcompletions")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completion%73")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions%00")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions;x=1")}, Reason.PATH),
        ({"segments": ("v1", "CHAT", "completions")}, Reason.PATH),
        ({"segments": ()}, Reason.PATH),
        ({"content_type": "text/plain"}, Reason.CONTENT_TYPE),
        ({"content_type": ""}, Reason.CONTENT_TYPE),
        ({"content_type": "application/json; charset=utf-16"}, Reason.CONTENT_TYPE),
        ({"content_type": "application/json, text/plain"}, Reason.CONTENT_TYPE),
        ({"body_length": 64 * 1024 * 1024 + 1}, Reason.TOO_LARGE),
    ],
)
def test_it_is_good_only_for_what_it_was_issued_for(place: Place, asked: dict[str, Any], reason: Reason) -> None:
    text = place.issue()

    assert place.refused(text, **asked) == reason

    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score, refused.risk_reasons) == (reason, 40, ["token.beyond"])
    assert refused.details["service"] == asked.get("service", "openai")
    assert (place.token().uses, under_way()) == (0, 0)
    place.redeem(text, content_type='application/json; charset="UTF-8"')


ALLOW = [
    {"methods": ["GET"], "paths": ["/repos/*/*/contents/**"]},
    {"methods": ["PUT", "POST"], "paths": ["/repos/acme/*/issues"], "max_body": 100},
    {"methods": ["GET"], "paths": ["/"]},
]


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/repos/acme/site/contents", None),
        ("GET", "/repos/acme/site/contents/a/b/c.md", None),
        ("GET", "/repos/acme/site/contents/caf%C3%A9%20menu.md", None),
        ("GET", "/", None),
        ("PUT", "/repos/acme/site/issues", None),
        ("GET", "/repos/acme/site", Reason.PATH),
        ("GET", "/repos/acme/site/contents/..", Reason.PATH),
        ("GET", "/repos/acme/site/contents/%2e%2e/x", Reason.PATH),
        ("GET", "/repos/acme/site/contents//x", Reason.PATH),
        ("GET", "/repos/acme/si%2fte/contents/x", Reason.PATH),
        ("GET", "/repos/acme/site/contents/a\\b", Reason.PATH),
        ("GET", "/repos/acme/site/contents/é", Reason.PATH),
        ("POST", "/repos/evil/site/issues", Reason.PATH),
        ("POST", "/repos/acme/site/issues/1", Reason.PATH),
        ("DELETE", "/repos/acme/site/issues", Reason.METHOD),
    ],
)
def test_a_star_is_one_segment_and_two_at_the_end_are_the_rest(
    place: Place, method: str, path: str, reason: Reason | None
) -> None:
    text = place.issue(service="github", allow=ALLOW)
    asked: dict[str, Any] = {
        "service": "github",
        "method": method,
        "segments": tuple(path.split("/")[1:]),
        "body_length": 0,
    }

    if reason is None:
        assert place.redeem(text, **asked).asked.path == path
    else:
        assert place.refused(text, **asked) == reason


def test_a_call_may_bound_its_bodies(place: Place) -> None:
    text = place.issue(service="github", allow=ALLOW, max_uses=None)
    asked: dict[str, Any] = {"service": "github", "segments": ("repos", "acme", "site", "issues")}

    assert place.redeem(text, **asked, body_length=100).max_body == 100
    assert place.redeem(text, **asked, body_length=None).max_body == 100
    assert place.refused(text, **asked, body_length=101) == Reason.TOO_LARGE


def test_a_service_that_was_deleted_is_refused(place: Place) -> None:
    row = place.service("llm")
    text = place.issue(service="llm", allow=[{"methods": ["POST"], "paths": ["/**"]}], max_uses=None)
    place.redeem(text, service="llm")

    row.delete()

    assert place.refused(text, service="llm") == Reason.SERVICE


PIECES = st.sampled_from(
    ["a", ".", "..", "", "%2e", "%2F", "%20", "%C3%A9", "\\", ";", "a b", "é", "a%", "%00", "repos"]
)
SEGMENTS = st.lists(PIECES, max_size=2).map("".join)
PATTERNS = st.lists(st.sampled_from(["*", "*", "repos", "a"]), min_size=1, max_size=3)


@given(PATTERNS, st.booleans(), st.lists(SEGMENTS, min_size=3, max_size=3), st.lists(SEGMENTS, max_size=2))
def test_whatever_fits_is_read_alike_before_and_after_decoding(
    pattern: list[str],
    open_end: bool,  # noqa: FBT001
    chosen: list[str],
    more: list[str],
) -> None:
    # Where a pattern has a name the path has it too, so that stars are what decides.
    segments = [new if one == "*" else one for one, new in zip(pattern, chosen, strict=False)] + more
    path = "/" + "/".join([*pattern, "**"] if open_end else pattern)
    allow = [call.as_json() for call in calls.checked([{"methods": ["GET"], "paths": [path]}])]

    if calls.match(allow, Asked("github", "GET", tuple(segments))).reason is not None:
        return

    decoded = unquote("/".join(segments)).split("/")
    assert decoded == list(map(unquote, segments))
    assert not {".", "..", ""} & set(decoded)
    assert open_end or not more
    assert not {"\\", ";", "\x00"} & set("".join(decoded))
