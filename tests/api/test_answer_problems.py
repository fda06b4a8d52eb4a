"""Every error of the REST API is a problem document, whoever in the chain of layers raises it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from corekit.errors import RateLimited
from tenants import selectors
from tests.api.rest import Rest, problem

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db


def test_an_unknown_object(rest: Rest) -> None:
    answer = rest.call("get", "sandboxes/inothere")

    found = problem(answer)
    found.pop("request_id")
    assert found == {
        "type": "urn:gatehouse:problem:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "The sandbox was not found.",
        "code": "not_found",
    }


def test_a_wrong_method_names_the_right_ones(rest: Rest) -> None:
    answer = rest.call("put", "sandboxes")

    assert (answer.status_code, problem(answer)["code"]) == (405, "method_not_allowed")
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_another_media_type(rest: Rest) -> None:
    assert rest.refused("post", "sandboxes", raw=b"a=1", content_type="application/x-www-form-urlencoded") == (
        415,
        "unsupported_media_type",
        None,
    )


def test_an_accept_header_changes_nothing(rest: Rest) -> None:
    for accept in ("text/html", "application/xml", "nonsense", "*/*"):
        answer = rest.call("get", "me", Accept=accept)
        assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": 1, "a": 2}', "given twice"),
        (b'{"template": "\\u0000"}', "NUL"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_body_that_is_no_object(rest: Rest, raw: bytes, said: str) -> None:
    answer = rest.call("post", "sandboxes", raw=raw)
    assert answer.status_code == 400
    assert said in problem(answer)["detail"]


def test_a_body_that_is_too_large(rest: Rest, settings: Any) -> None:
    settings.API_MAX_BODY_BYTES = 100
    assert rest.refused("post", "sandboxes", raw=b'{"template": "' + b"x" * 100 + b'"}') == (413, "too_large", None)


def test_an_unknown_field_is_named(rest: Rest) -> None:
    assert rest.refused("post", "sandboxes", {"tmeplate": "base"}) == (400, "invalid_input", "tmeplate")
    assert rest.refused("get", "sandboxes?sate=running") == (400, "invalid_input", "sate")
    assert rest.refused("get", "sandboxes?limit=1&limit=2") == (400, "invalid_input", "limit")


def test_when_to_come_back_is_in_header_and_body(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise RateLimited(retry_after=7, limit="creates_per_minute")

    monkeypatch.setattr(selectors, "tenants_for", busy)

    answer = rest.call("get", "tenants")

    assert (answer.status_code, answer["Retry-After"]) == (429, "7")
    found = problem(answer)
    assert (found["code"], found["retry_after"]) == ("rate_limited", 7)
    assert found["details"] == {"limit": "creates_per_minute"}


def test_a_bug_says_nothing_about_itself(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, log_lines: list[Any], alice: Caller
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"the secret {alice.secret}")

    monkeypatch.setattr(selectors, "tenants_for", broken)

    answer = rest.call("get", "tenants")

    assert (answer.status_code, problem(answer)["code"]) == (500, "internal_error")
    assert alice.secret not in answer.content.decode()
    assert [line["view"] for line in log_lines if line["event"] == "unhandled_exception"] == ["Tenants"]


def test_an_unknown_host_name_with_a_session_cookie_is_a_problem(olga: Rest) -> None:
    answer: Any = olga.client.get("/api/v1/me", headers={"host": "evil.example"})
    assert (answer.status_code, problem(answer)["code"]) == (400, "invalid_input")
