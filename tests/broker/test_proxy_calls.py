"""A sandbox's call goes to the service with the secret in its slot, and the answer comes back without it."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tenants.secrets.actions import create_secret
from tenants.tokenmodels import BrokerService
from tests.broker.proxyplace import ALICE, BOB, KEY, Place, one_vendor, place, vendor
from tests.webserver import Connection

if TYPE_CHECKING:
    from tests.broker.vendor import Peer, Request

__all__ = ["one_vendor", "place", "vendor"]

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_service_gets_the_secret_and_the_sandbox_the_answer(place: Place) -> None:
    token = place.token()

    answer = place.ask("POST", "/vendor/v1/things?limit=2", b"{}", token=token)

    assert (answer.status, answer.json()) == (200, {"method": "POST", "target": "/v1/things?limit=2", "length": 2})
    request = place.vendor.requests[0]
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert token not in str(request)
    event = place.events("token.redeemed")[0]
    assert (event.sandbox_id, event.status, event.outcome) == (ALICE, 200, "ok")
    assert (event.details["path"], event.details["bytes_out"]) == ("/v1/things", 2)
    assert event.details["bytes_in"] == len(answer.body)


@pytest.mark.parametrize(
    ("slot", "secret", "name", "value"),
    [
        ("bearer", KEY, "authorization", f"Bearer {KEY}"),
        ("header:x-api-key", KEY, "x-api-key", KEY),
        ("basic", "acme:geheim", "authorization", "Basic " + base64.b64encode(b"acme:geheim").decode()),
        ("basic", "geheimnis", "authorization", "Basic " + base64.b64encode(b"geheimnis:").decode()),
    ],
)
def test_the_secret_travels_in_the_slot_of_the_service(
    place: Place, slot: str, secret: str, name: str, value: str
) -> None:
    create_secret(actor=place.alice.actor, tenant=place.alice.tenant, name="other-key", value=secret)
    place.service("slotted", slot=slot)

    answer = place.ask(path="/slotted/v1", token=place.token(service="slotted", secret="other-key"))

    assert answer.status == 200
    assert place.vendor.requests[0].headers[name] == value


def test_a_secret_in_the_query_takes_the_place_of_what_the_sandbox_put_there(place: Place) -> None:
    place.service("slotted", slot="query:key")

    place.ask(path="/slotted/v1?key=mine&a=1&%6bey=x&key", token=place.token(service="slotted"))

    assert place.vendor.requests[0].target == "/v1?a=1&key=sk-proj-T3st%2FKey%2Bof%3DAcme_9fQ2xWv7"


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-goog-api-key"])
def test_the_token_may_stand_where_a_client_puts_its_key(place: Place, name: str) -> None:
    assert place.ask(token=None, headers={name: place.token()}).status == 200
    assert name not in place.vendor.requests[0].headers


@pytest.mark.parametrize("pair", ["{}:", ":{}", "x-access-token:{}"])
def test_the_token_may_be_either_half_of_basic(place: Place, pair: str) -> None:
    basic = base64.b64encode(pair.format(place.token()).encode()).decode()

    assert place.ask(token=None, headers={"Authorization": f"basic {basic}"}).status == 200
    assert place.vendor.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_two_tokens_at_once_are_refused(place: Place) -> None:
    answer = place.ask(headers={"x-api-key": place.token()})

    assert (answer.status, answer.code) == (401, "token_refused")
    assert place.vendor.requests == []
    assert place.events("token.refused")[0].reason == "malformed"


def test_without_a_token_there_is_no_call(place: Place) -> None:
    answer = place.ask(token=None, headers={"Authorization": "Bearer sk-mine", "x-api-key": "sk-mine"})

    assert (answer.status, answer.code) == (401, "token_refused")
    assert answer.headers["x-should-retry"] == answer.headers["should-retry"] == "false"
    assert place.vendor.requests == []


def test_headers_that_no_entry_names_stay_behind(place: Place) -> None:
    BrokerService.objects.filter(name="vendor").update(headers=["x-vendor-version", "x-secretive"])
    said = {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": "app/1",
        "X-Vendor-Version": "7",
        "X-Other": "a",
        "Cookie": "a=b",
        "Origin": "http://x",
        "Referer": "http://x",
        "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "Via": "1.1 x",
        "Accept-Encoding": "gzip, br",
        "Proxy-Authorization": "Basic x",
        "TE": "trailers",
        "Connection": "X-Secretive",
        "X-Secretive": "1",
    }

    assert place.ask("POST", body=b"{}", headers=said).status == 200

    fields = place.vendor.requests[0].headers
    assert fields == {
        "host": f"localhost:{place.vendor.port}",
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "app/1",
        "x-vendor-version": "7",
        "accept-encoding": "identity",
        "content-length": "2",
        "authorization": f"Bearer {KEY}",
    }


def test_headers_that_a_client_would_act_on_do_not_come_back(place: Place) -> None:
    async def talk(_request: Request, peer: Peer) -> None:
        await peer.answer(
            b"{}",
            headers={
                "Set-Cookie": "a=b",
                "WWW-Authenticate": "Basic",
                "Alt-Svc": 'h3=":443"',
                "Link": "<x>; rel=preload",
                "Strict-Transport-Security": "max-age=1",
                "Clear-Site-Data": '"*"',
                "Refresh": "0; url=x",
                "Connection": "X-Hop, keep-alive",
                "X-Hop": "1",
                "Keep-Alive": "timeout=5",
                "Proxy-Status": "x",
                "Cache-Control": "public",
                "Location": "https://elsewhere.test/",
                "X-Accel-Redirect": "/etc",
                "X-Request-Id": "req_1",
                "Openai-Processing-Ms": "12",
                "Retry-After": "3",
            },
        )

    place.vendor.behave = talk

    answer = place.ask()

    assert answer.status == 200
    del answer.headers["date"], answer.headers["content-type"], answer.headers["content-length"]
    assert answer.headers == {
        "x-request-id": "req_1",
        "openai-processing-ms": "12",
        "retry-after": "3",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
    }


def test_an_error_of_the_service_comes_back_as_it_is(place: Place) -> None:
    async def fail(_request: Request, peer: Peer) -> None:
        await peer.answer({"error": {"message": "Rate limit reached"}}, 429, {"Retry-After": "20"})

    place.vendor.behave = fail

    answer = place.ask()

    assert (answer.status, answer.headers["retry-after"]) == (429, "20")
    assert answer.json() == {"error": {"message": "Rate limit reached"}}
    assert place.events("token.redeemed")[0].status == 429


def test_answers_without_a_body_pass(place: Place) -> None:
    async def briefly(request: Request, peer: Peer) -> None:
        length = {"HEAD": {"Content-Length": "12345678"}}.get(request.method, {})
        status = {"GET": 304, "DELETE": 204, "HEAD": 200}[request.method]
        await peer.head(status, {"ETag": '"1"', **length})

    place.vendor.behave = briefly

    for method, status in (("GET", 304), ("DELETE", 204), ("HEAD", 200)):
        answer = place.ask(method)
        assert (answer.status, answer.headers["etag"], answer.body) == (status, '"1"', b"")
    assert len(place.events("token.redeemed", 3)) == 3


def test_a_body_of_unknown_length_passes_as_one(place: Place) -> None:
    answer = place.ask("POST", body=iter([b"one", b"two", b"three"]))

    assert answer.json()["length"] == 11
    request = place.vendor.requests[0]
    assert (request.body, request.headers["transfer-encoding"]) == (b"onetwothree", "chunked")
    assert "content-length" not in request.headers
    assert place.events("token.redeemed")[0].details["bytes_out"] == 11


def test_a_large_body_passes_whole_in_both_directions(place: Place) -> None:
    async def give_back(request: Request, peer: Peer) -> None:
        await peer.answer(request.body)

    place.vendor.behave = give_back
    body = bytes(range(256)) * 16_384

    assert place.ask("PUT", body=body).body == body


def test_a_base_url_may_have_a_path(place: Place) -> None:
    place.service("deep", base_url=f"{place.vendor.base_url}/gateway/eu/")

    target = place.ask(path="/deep/v1/things", token=place.token(service="deep")).json()["target"]

    assert target == "/gateway/eu/v1/things"


def test_a_body_is_held_to_the_rules_of_the_token_before_any_of_it_goes_out(place: Place) -> None:
    token = place.token(params={"model": ["small"]}, max_uses=1)

    refused = place.ask("POST", body=b'{"model": "large"}', token=token)
    taken = place.ask("POST", body=b'{"model": "small"}', token=token)

    assert (refused.status, refused.code) == (401, "token_refused")
    assert taken.status == 200
    assert [request.json() for request in place.vendor.requests] == [{"model": "small"}]


def test_a_larger_body_than_the_token_allows_is_refused(place: Place) -> None:
    small = ({"methods": ["POST"], "paths": ["/**"], "max_body": 1000},)

    announced = place.ask("POST", body=b"x" * 1001, token=place.token(allow=small))
    unannounced = place.ask("POST", body=iter([b"x" * 600] * 2), token=place.token(allow=small))

    assert announced.status == 401
    assert (unannounced.status, unannounced.code) == (413, "too_large")
    assert place.vendor.requests == []
    assert place.events("token.redeemed")[0].reason == "too_large"


@pytest.mark.parametrize(
    "identity",
    [
        {"Gatehouse-Sandbox-Id": ""},
        {"Gatehouse-Sandbox-Id": "../web"},
        {"Gatehouse-Sandbox-Generation": "0"},
        {"Gatehouse-Sandbox-Generation": "1, 2"},
    ],
)
def test_who_is_not_known_is_not_served(place: Place, identity: dict[str, str]) -> None:
    answer = place.ask(headers=identity)

    assert (answer.status, answer.code) == (401, "unknown_caller")
    assert place.vendor.requests == []


def test_another_sandbox_or_generation_is_refused_and_recorded(place: Place) -> None:
    token = place.token(max_uses=1)

    assert place.ask(token=token, sandbox=BOB).status == 401
    assert place.ask(token=token, generation=2).status == 401

    assert [event.reason for event in place.events("token.refused", 2)] == ["other_sandbox", "other_generation"]
    assert place.vendor.requests == []
    assert place.ask(token=token).status == 200


def test_two_hundred_calls_at_once_with_a_one_time_token_are_one_call(place: Place) -> None:
    token = place.token(max_uses=1)
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda _: place.ask(token=token).status, range(200)))

    assert sorted(answers) == [200] + [401] * 199
    assert len(place.vendor.requests) == 1
    assert len(place.events("token.reused", 199)) == 199


def test_the_broker_is_reached_by_its_own_listener_only(place: Place) -> None:
    said = {"Gatehouse-Sandbox-Id": ALICE, "Gatehouse-Sandbox-Generation": "1", "x-api-key": place.token()}
    for listener in (place.web.public, place.web.internal):
        connection = Connection(listener)
        connection.request("GET", "/vendor/v1/things", headers=said)
        assert connection.getresponse().status == 404
        connection.close()
    assert place.vendor.requests == []


def test_nothing_else_is_reached_by_the_listener_of_the_broker(place: Place) -> None:
    for path in ("/health", "/", "/v2/sandboxes", "/internal/v1/sandboxes/ialice/resume"):
        assert place.ask("POST", path, b"{}").status in (400, 401)
    assert place.vendor.requests == []
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert place.ask(path="/ws/events", headers=upgrade | {"Sec-WebSocket-Version": "13"}).status == 403
