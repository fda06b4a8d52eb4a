"""Around every request: ids, addresses, headers, and JSON on every error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from asgiref.testing import ApplicationCommunicator
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.urls import include, path
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.response import Response
from rest_framework.views import APIView

from corekit import tracing
from corekit.errors import Conflict, NotFound, QuotaExceeded
from corekit.ids import is_event_id
from gatehouse.asgi import application
from gatehouse.middleware import client_address

if TYPE_CHECKING:
    from rest_framework.request import Request

    from tests.people import ApiClient


class Echo(APIView):
    """Returns what was sent and who sent it."""

    def get(self, request: Request) -> Response:
        actor: Any = request.auth
        return Response({"tenant": actor.tenant_id, "origin": actor.origin, "user": str(request.user)})

    def post(self, request: Request) -> Response:
        return Response(request.data, status=201)


class Fail(APIView):
    """Raises what the path names."""

    def get(self, request: Request, what: str) -> Response:
        failures: dict[str, Exception] = {
            "missing": NotFound("There is no sandbox i1."),
            "conflict": Conflict("It ended.", state="ended"),
            "quota": QuotaExceeded("full", limit="sandboxes"),
            "throttled": Throttled(wait=2.5),
            "validation": ValidationError({"network": {"rules": [{}, {"host": ["is no host name"]}]}}),
            "bug": RuntimeError("a secret detail"),
            "away": OperationalError("connection to server at db.example failed"),
        }
        raise failures[what]


class Misread(APIView):
    """Asks the database for what is not there."""

    def get(self, request: Request) -> Response:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM no_such_table")
        return Response({})


def plain_away(request: HttpRequest) -> HttpResponse:
    raise OperationalError("connection to server at db.example failed")


def plain_bug(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a secret detail")


def plain_forbidden(request: HttpRequest) -> HttpResponse:
    return HttpResponseForbidden("<h1>no</h1>")


urlpatterns = [
    path("echo", Echo.as_view()),
    path("fail/<what>", Fail.as_view()),
    path("plain-bug", plain_bug),
    path("plain-away", plain_away),
    path("misread", Misread.as_view()),
    path("plain-forbidden", plain_forbidden),
    path("", include("gatehouse.urls")),
]
handler400 = "gatehouse.views.bad_request"
handler404 = "gatehouse.views.not_found"
handler500 = "gatehouse.views.server_error"


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def body(answer: HttpResponse) -> dict[str, Any]:
    assert answer["Content-Type"] == "application/json"
    found: dict[str, Any] = json.loads(answer.content)
    return found


def test_health_needs_no_key_and_no_database(anonymous_api: ApiClient, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        answer = anonymous_api.get("/health")
    assert (answer.status_code, body(answer)) == (200, {"status": "ok"})


def test_a_key_comes_in_its_header_or_as_a_bearer(api: ApiClient, anonymous_api: ApiClient, acme: Any) -> None:
    key = api.headers["X-API-KEY"]
    for headers in ({"X-API-KEY": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key} "}):
        answer = anonymous_api.get("/echo", headers)
        assert body(answer) == {"tenant": acme.id.hex, "origin": "127.0.0.1", "user": "Alice's key"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-KEY": "e2b_" + "0" * 40},
        {"X-API-KEY": "nonsense"},
        {"Authorization": "Basic dTpw"},
        {"Authorization": "Bearer"},
    ],
)
def test_without_a_good_key_401(anonymous_api: ApiClient, headers: dict[str, str]) -> None:
    answer = anonymous_api.get("/echo", headers)
    assert answer.status_code == 401
    assert (body(answer)["code"], body(answer)["error_code"]) == (401, "unauthorized")


def test_every_answer_has_a_request_id(api: ApiClient) -> None:
    assert is_event_id(api.get("/echo")["X-Request-Id"])
    assert api.get("/echo", {"X-Request-Id": "request-0001"})["X-Request-Id"] == "request-0001"
    assert api.get("/echo", {"X-Request-Id": "bad id"})["X-Request-Id"] != "bad id"


def test_every_answer_has_a_trace(api: ApiClient) -> None:
    answer = api.get("/echo", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    assert answer["traceparent"].startswith(f"00-{'a' * 32}-")
    assert answer["traceparent"] != f"00-{'a' * 32}-{'b' * 16}-01"
    assert api.get("/echo", {"traceparent": "nonsense"})["traceparent"].startswith("00-")
    assert tracing.current() is None


@pytest.mark.parametrize(
    ("meta", "address"),
    [
        ({"HTTP_X_FORWARDED_FOR": "203.0.113.9"}, "203.0.113.9"),
        ({"HTTP_X_FORWARDED_FOR": "2001:DB8::1"}, "2001:db8::1"),
        ({"HTTP_X_FORWARDED_FOR": "203.0.113.9, 10.0.0.1"}, None),
        ({"HTTP_X_FORWARDED_FOR": "'; drop table"}, None),
        ({}, None),
        ({"REMOTE_ADDR": "198.51.100.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}, "198.51.100.1"),
    ],
)
def test_the_gateways_address_counts_only_over_its_socket(meta: dict[str, str], address: str | None) -> None:
    request = HttpRequest()
    request.META.update(meta)
    assert client_address(request) == address


def test_api_answers_trust_nobody_and_are_not_kept(api: ApiClient) -> None:
    answer = api.get("/echo")
    assert answer["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cache-Control"] == "no-store"
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert answer["Content-Length"] == str(len(answer.content))
    assert not answer.cookies


def test_pages_have_a_strict_policy_and_stay_closed_to_other_origins(anonymous_api: ApiClient) -> None:
    answer = anonymous_api.get("/accounts/login/")
    assert answer.status_code == 200
    assert "script-src 'self'" in answer["Content-Security-Policy"]
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert not answer.has_header("Access-Control-Allow-Origin")
    assert answer.cookies["csrf"]["httponly"]
    assert (
        anonymous_api.call("OPTIONS", "/admin/", headers={"Access-Control-Request-Method": "POST"}).status_code == 302
    )


def test_pages_refuse_forms_from_elsewhere(db: None) -> None:
    from django.test import Client

    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    assert client.post("/accounts/login/", {"login": "x", "password": "y"}).status_code == 403


def test_static_files_are_served(anonymous_api: ApiClient) -> None:
    answer = anonymous_api.get("/static/admin/css/base.css")
    assert (answer.status_code, answer["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert anonymous_api.get("/static/no/such.css").status_code == 404


def test_a_preflight_needs_no_key(anonymous_api: ApiClient) -> None:
    answer = anonymous_api.call(
        "OPTIONS",
        "/echo",
        headers={"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"},
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert "DELETE" in answer["Access-Control-Allow-Methods"]
    assert answer["Access-Control-Allow-Headers"] == "x-api-key"


@pytest.mark.parametrize(
    ("what", "status", "expected"),
    [
        ("missing", 404, {"message": "There is no sandbox i1.", "error_code": "not_found"}),
        ("conflict", 409, {"message": "It ended.", "error_code": "conflict", "details": {"state": "ended"}}),
        ("quota", 429, {"message": "full", "error_code": "quota_exceeded", "details": {"limit": "sandboxes"}}),
        ("throttled", 429, {"message": "Too many requests", "error_code": "rate_limited"}),
        (
            "validation",
            400,
            {
                "message": "network.rules[1].host: is no host name",
                "error_code": "invalid_input",
                "field": "network.rules[1].host",
            },
        ),
        ("bug", 500, {"message": "Something went wrong", "error_code": "internal_error"}),
    ],
)
def test_every_failure_has_one_form(api: ApiClient, what: str, status: int, expected: dict[str, Any]) -> None:
    answer = api.get(f"/fail/{what}")
    assert answer.status_code == status
    assert body(answer) == {"code": status} | expected


def test_clients_are_told_when_to_come_back(api: ApiClient) -> None:
    assert api.get("/fail/throttled")["Retry-After"] == "3"
    assert api.get("/fail/quota")["Should-Retry"] == "false"
    assert api.get("/fail/quota").has_header("Retry-After") is False


def test_an_unknown_path_is_json_404(anonymous_api: ApiClient) -> None:
    answer = anonymous_api.get("/no/such/path")
    assert body(answer) == {"code": 404, "message": "There is nothing at /no/such/path.", "error_code": "not_found"}


def test_a_wrong_method_is_json_405(api: ApiClient) -> None:
    answer = api.call("DELETE", "/echo")
    assert (answer.status_code, body(answer)["error_code"]) == (405, "method_not_allowed")
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_djangos_own_refusals_are_json_too(api: ApiClient) -> None:
    answer = api.get("/plain-forbidden")
    assert (answer.status_code, body(answer)["error_code"]) == (403, "forbidden")


def test_a_bug_says_nothing_about_itself(api: ApiClient) -> None:
    for where in ("/fail/bug", "/plain-bug"):
        answer = api.get(where)
        assert answer.status_code == 500
        assert "secret" not in answer.content.decode()
        assert answer["X-Request-Id"]


def test_a_database_that_is_away_is_no_bug(api: ApiClient) -> None:
    for where in ("/fail/away", "/plain-away"):
        answer = api.get(where)
        assert (answer.status_code, answer["Retry-After"]) == (503, "1")
        expected = {"code": 503, "message": "The database does not answer at the moment.", "error_code": "unavailable"}
        assert body(answer) == expected


def test_a_wrong_query_is_a_bug(api: ApiClient) -> None:
    assert api.get("/misread").status_code == 500


def test_json_comes_back_as_it_went(api: ApiClient) -> None:
    sent = {"a": [1, 2.5, None, True], "b": {"é": "\U0001f600"}, "n": 2**63 - 1}
    answer = api.post("/echo", sent)
    assert (answer.status_code, body(answer)) == (201, sent)
    assert body(api.call("POST", "/echo", raw=b"")) == {}


@pytest.mark.parametrize(
    ("raw", "said", "field"),
    [
        (b"{", "not JSON", None),
        (b"nonsense", "not JSON", None),
        (b"\xff", "not UTF-8", None),
        (b'{"a": NaN}', "NaN is not a JSON number", None),
        (b'{"a": [1e999]}', "out of range", "a[0]"),
        (b'{"a": 1, "a": 2}', "given twice", "a"),
        (b'{"a": {"b": ["x", "y\\u0000"]}}', "NUL character", "a.b[1]"),
        (b'{"a\\u0000": 1}', "NUL character", None),
        (b'{"a": "\\ud800"}', "half a surrogate pair", "a"),
        (b'{"a": 9223372036854775808}', "out of range", "a"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too long", None),
        (b"[" * 40 + b"]" * 40, "deeper than 32", None),
        (b"[" * 200_000, "deeper than 32", None),
        (b"[" + b"1," * 100_000 + b"1]", "more than 100000 values", None),
    ],
)
def test_json_that_would_make_trouble_is_refused(api: ApiClient, raw: bytes, said: str, field: str | None) -> None:
    answer = api.call("POST", "/echo", raw=raw)
    assert answer.status_code == 400
    found = body(answer)
    assert found["error_code"] == "invalid_input"
    assert said in found["message"]
    assert field is None or found["field"] == field


def test_other_content_types_are_415(api: ApiClient) -> None:
    answer = api.call("POST", "/echo", raw=b"a=1", content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, body(answer)["error_code"]) == (415, "unsupported_media_type")


def test_a_large_body_is_413(api: ApiClient, settings: Any) -> None:
    settings.API_MAX_BODY_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    assert api.call("POST", "/echo", raw=b'"' + b"x" * 998 + b'"').status_code == 201
    answer = api.call("POST", "/echo", raw=b'"' + b"x" * 999 + b'"')
    assert (answer.status_code, body(answer)["error_code"]) == (413, "too_large")


async def ask(messages: list[dict[str, Any]], **scope: Any) -> list[dict[str, Any]]:
    """Send one request to the ASGI application and return all that it sends back."""
    base = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/health",
        "raw_path": b"/health",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": None,
        "server": ("/run/web.sock", None),
        "scheme": "http",
    }
    communicator: Any = cast("Any", ApplicationCommunicator)(application, base | scope)
    for message in messages:
        await communicator.send_input(message)
    got = [await communicator.receive_output(5)]
    while not got[-1]["type"].endswith(("body", "close", "shutdown.complete")) or got[-1].get("more_body"):
        got.append(await communicator.receive_output(5))
    await communicator.wait(5)
    return got


async def test_the_server_starts_and_stops() -> None:
    sent = await ask([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}], type="lifespan")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_health_over_asgi() -> None:
    sent = await ask([{"type": "http.request", "body": b""}])
    assert sent[0]["status"] == 200
    assert json.loads(sent[1]["body"]) == {"status": "ok"}


async def test_a_websocket_that_nothing_serves_is_closed() -> None:
    sent = await ask([{"type": "websocket.connect"}], type="websocket", path="/nowhere")
    assert (sent[0]["type"], sent[0]["code"]) == ("websocket.close", 4404)


async def test_an_announced_large_body_is_refused_before_it_is_read() -> None:
    sent = await ask([], method="POST", headers=[(b"host", b"localhost"), (b"content-length", b"999999999")])
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["error_code"] == "too_large"


async def test_under_the_rest_api_that_is_a_problem_too() -> None:
    headers = [(b"host", b"localhost"), (b"content-length", b"999999999")]
    sent = await ask([], method="POST", path="/api/v1/sandboxes", headers=headers)
    found = json.loads(sent[1]["body"])
    assert (sent[0]["status"], found["code"], found["status"]) == (413, "too_large", 413)
    assert dict(sent[0]["headers"])[b"content-type"] == b"application/problem+json"
    assert dict(sent[0]["headers"])[b"x-request-id"].decode() == found["request_id"]


async def test_an_endless_body_is_refused_while_it_arrives() -> None:
    chunk = {"type": "http.request", "body": b"x" * 1_048_576, "more_body": True}
    sent = await ask([chunk] * 5, method="POST", path="/sandboxes")
    assert sent[0]["status"] == 413
