"""Ways to a secret that goes through the broker, as code in a sandbox tries them, or a service that helps it."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import TYPE_CHECKING

import pytest

from corekit.needles import Needles
from tenants.broker.headers import come_back
from tests.broker.proxyplace import ALICE, BOB, KEY, Answer, Place, one_vendor, place, spellings, vendor
from tests.webserver import Connection

if TYPE_CHECKING:
    from tests.broker.vendor import Peer, Request

__all__ = ["one_vendor", "place", "vendor"]

pytestmark = pytest.mark.django_db(transaction=True)
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
# To a reader of JSON the small model, to a reader of forms the large one.
TWO_READINGS = b'{"model":"small","x":"&model=large&"}'
SMALL_ONLY = {"model": ["small"]}


def tell(place: Place, line: str, *fields: str, body: bytes = b"", token: str | None = None) -> Answer:
    """Send a request with these fields as they are, and those that egress adds."""
    connection = Connection(place.web.broker)
    connection.connect()
    said = [
        "Host: broker.gatehouse.internal",
        f"Authorization: Bearer {token or place.token()}",
        *fields,
        *([f"Content-Length: {len(body)}"] if body else []),
        f"Gatehouse-Sandbox-Id: {ALICE}",
        "Gatehouse-Sandbox-Generation: 1",
    ]
    connection.sock.sendall("\r\n".join([f"{line} HTTP/1.1", *said, "", ""]).encode() + body)
    response = http.client.HTTPResponse(connection.sock, method=line.split(" ")[0])
    response.begin()
    try:
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def nothing_of_it(answer: Answer) -> bool:
    """Say whether no spelling of the secret stands in an answer."""
    seen = answer.body + repr(answer.headers).encode()
    return not any(spelling in seen for spelling in spellings().values())


# --- what code in the sandbox asks for


def test_a_plain_request_carries_the_secret_once(place: Place) -> None:
    assert tell(place, "GET /vendor/v1/things").status == 200
    assert [(name, value) for name, value in place.vendor.requests[0].fields if KEY in value] == [
        ("authorization", f"Bearer {KEY}")
    ]


@pytest.mark.parametrize(
    "field",
    [
        "Range: bytes=10-14",
        "If-Range: x",
        "Content-Encoding: deflate",
        "X-HTTP-Method-Override: DELETE",
        "X-Original-URL: /admin",
        "Expect: 100-continue",
        "TE: trailers",
        "Cookie: a=b",
        "X-Forwarded-Host: evil.test",
        "X-Api-Key: own",
        "Accept-Encoding: gzip",
    ],
)
def test_a_field_that_changes_what_is_asked_for_stays_behind_whatever_the_service_takes(
    place: Place, field: str
) -> None:
    name, _, value = field.partition(": ")
    place.service(headers=[name.lower(), "x-kept"])

    assert tell(place, "GET /vendor/v1/things", field, "X-Kept: 1").status == 200

    got = place.vendor.requests[0].headers
    assert got["x-kept"] == "1"
    assert value not in got.values()


@pytest.mark.parametrize("dropped", ["authorization", "gatehouse-sandbox-id", "host"])
def test_a_connection_field_takes_nothing_away(place: Place, dropped: str) -> None:
    assert tell(place, "GET /vendor/v1/things", f"Connection: {dropped}").status == 200
    assert place.vendor.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_beside_the_token_no_other_login_gets_to_the_service(place: Place) -> None:
    assert tell(place, "GET /vendor/v1/things", "Authorization: Bearer own", "X-Goog-Api-Key: own").status == 200
    assert [value for name, value in place.vendor.requests[0].fields if name.lower() == "authorization"] == [
        f"Bearer {KEY}"
    ]
    assert "own" not in repr(place.vendor.requests[0].fields)


def test_two_tokens_are_none(place: Place) -> None:
    assert tell(place, "GET /vendor/v1/things", f"X-Api-Key: {place.token()}").code == "token_refused"
    assert place.vendor.requests == []


@pytest.mark.parametrize("field", [f"Gatehouse-Sandbox-Id: {BOB}", "Gatehouse-Sandbox-Generation: 2"])
def test_who_says_it_twice_is_nobody(place: Place, field: str) -> None:
    assert tell(place, "GET /vendor/v1/things", field).code == "unknown_caller"
    assert place.vendor.requests == []


@pytest.mark.parametrize("target", ["//vendor/v1/things", "/VENDOR/v1/things", "/vendor/v1/things;x"])
def test_another_form_of_the_target_leads_nowhere(place: Place, target: str) -> None:
    assert tell(place, f"GET {target}").status in {400, 401}
    assert place.vendor.requests == []


def test_another_host_in_the_target_leads_to_the_service_all_the_same(place: Place) -> None:
    assert tell(place, "GET http://evil.test/vendor/v1/things", "X-Forwarded-Host: evil.test").status == 200
    assert place.vendor.requests[0].target == "/v1/things"
    assert place.vendor.requests[0].headers["host"] == place.vendor.base_url.removeprefix("https://")


@pytest.mark.parametrize(
    "fields",
    [
        (FORM,),
        (JSON, FORM),
        (FORM, JSON),
        ("Content-Type: multipart/form-data; boundary=x",),
        ("Content-Type: application/json; charset=utf-7",),
        ("Content-Type: text/plain",),
    ],
)
def test_a_body_that_two_readers_read_in_two_ways_breaks_its_rules(place: Place, fields: tuple[str, ...]) -> None:
    token = place.token(params=SMALL_ONLY)

    answer = tell(place, "POST /vendor/v1/chat", *fields, body=TWO_READINGS, token=token)

    assert (answer.status, answer.code) == (401, "token_refused")
    assert place.vendor.heads == []
    assert place.events("token.refused")[0].reason == "content_type"


@pytest.mark.parametrize("kind", [JSON, f"{JSON}; charset=utf-8", "Content-Type: application/merge-patch+json"])
def test_a_body_that_is_json_to_everybody_keeps_them(place: Place, kind: str) -> None:
    token = place.token(params=SMALL_ONLY)
    body = b'{"model":"small"}'

    assert tell(place, "POST /vendor/v1/chat", kind, body=body, token=token).status == 200
    assert json.loads(place.vendor.requests[0].body) == {"model": "small"}


# --- what a service answers


def test_what_comes_before_and_around_an_answer_stays_behind(place: Place) -> None:
    async def everywhere_but_inside(_request: Request, peer: Peer) -> None:
        await peer.send(f"HTTP/1.1 103 {KEY}\r\nLink: <{KEY}>\r\n\r\n".encode())
        await peer.send(f"HTTP/1.1 200 {KEY}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n".encode())
        await peer.send(f'2;x="{KEY}"\r\nok\r\n0\r\nX-Late: {KEY}\r\n\r\n'.encode())

    place.vendor.behave = everywhere_but_inside

    connection, response = place.send("GET", "/vendor/v1/things", token=place.token())
    seen = (response.reason.encode(), repr(response.getheaders()).encode(), response.read())
    connection.close()

    assert seen[2] == b"ok"
    assert not any(spelling in part for spelling in spellings().values() for part in seen)


@pytest.mark.parametrize("codings", [("identity", "gzip"), ("", "gzip"), ("gzip", "identity")])
def test_of_two_codings_none_is_overlooked(place: Place, codings: tuple[str, str]) -> None:
    body = gzip.compress(KEY.encode())

    async def echo(_request: Request, peer: Peer) -> None:
        lines = "".join(f"Content-Encoding: {coding}\r\n" for coding in codings)
        await peer.send(f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    place.vendor.behave = echo

    answer = place.ask()

    assert (answer.status, answer.code) == (502, "unreadable_answer")
    assert body not in answer.body


@pytest.mark.parametrize(
    "line", [f"Access-Control-Allow-Headers: {KEY.lower()}", f"X-Echo: {KEY.upper()}", f"X-Page: {KEY}"]
)
def test_a_field_repeats_it_in_no_case(place: Place, line: str) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        name, _, value = line.partition(": ")
        await peer.answer(b"{}", headers={name: value})

    place.vendor.behave = echo

    answer = place.ask()

    assert answer.status == 200
    assert KEY.lower() not in repr(answer.headers).lower()
    assert place.events("secret.reflected")[0].risk_score == 90


def test_a_field_is_not_named_by_it_in_whatever_case() -> None:
    named = [(b"X-Sk-Live-Ab12Cd34", b"1"), (b"X-Kept", b"2")]

    assert come_back(named, Needles([b"sk-Live-aB12cD34"])) == ([(b"x-kept", b"2")], True)


@pytest.mark.parametrize(("said", "counted"), [(10**30, 10**9), (-(10**30), 0), (7, 7)])
def test_a_service_that_counts_beyond_all_numbers_keeps_no_use_open(place: Place, said: int, counted: int) -> None:
    async def count(_request: Request, peer: Peer) -> None:
        await peer.answer({"usage": {"prompt_tokens": said}})

    place.vendor.behave = count
    place.service(kind="openai")

    assert place.ask().status == 200
    assert place.events("token.redeemed")[0].details["usage"] == counted
    assert place.row().spent_tokens == counted


def test_a_page_that_shows_it_is_withheld(place: Place) -> None:
    shown = KEY.replace("+", "&#43;").encode()

    async def echo(_request: Request, peer: Peer) -> None:
        await peer.answer(b"<p>Bad key: " + shown + b"</p>", 400, {"Content-Type": "text/html"})

    place.vendor.behave = echo

    answer = place.ask()

    assert (answer.status, answer.code) == (502, "secret_reflected")
    assert shown not in answer.body
    assert nothing_of_it(answer)
