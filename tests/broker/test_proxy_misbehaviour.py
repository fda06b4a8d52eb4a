"""A service that misbehaves harms nobody: no redirect is followed, no answer trusted that could be read in two ways."""

from __future__ import annotations

import dataclasses
import http.client
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tenants.tokenmodels import BrokerService, TokenUse
from tests.broker import vendor as vendors
from tests.broker.proxyplace import ALICE, KEY, Place, one_vendor, place, vendor
from tests.webserver import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.broker.vendor import Peer, Request

__all__ = ["one_vendor", "place", "vendor"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 305])
def test_a_redirect_is_not_followed(place: Place, status: int) -> None:
    async def redirect(_request: Request, peer: Peer) -> None:
        await peer.answer(b"", status, {"Location": f"{place.vendor.base_url}/elsewhere"})

    place.vendor.behave = redirect

    answer = place.ask("POST", body=b"{}")

    assert (answer.status, answer.code) == (502, "redirect_blocked")
    assert "location" not in answer.headers
    assert len(place.vendor.requests) == 1
    assert place.events("token.redeemed")[0].reason == "redirect_blocked"


@pytest.mark.parametrize("target", ["http://localhost/v1", "//evil.test/", "/v1/admin", "http://169.254.169.254/"])
def test_a_redirect_elsewhere_says_not_where(place: Place, target: str) -> None:
    async def redirect(_request: Request, peer: Peer) -> None:
        await peer.answer(f"see {target}".encode(), 302, {"Location": target})

    place.vendor.behave = redirect

    answer = place.ask()

    assert (answer.status, answer.code) == (502, "redirect_blocked")
    assert target.encode() not in answer.body


def test_a_service_that_hangs_is_given_up(place: Place) -> None:
    async def hang(_request: Request, peer: Peer) -> None:
        await peer.until("the end")

    place.vendor.behave = hang
    place.wait_for_services(0.3)

    answer = place.ask()

    assert (answer.status, answer.code) == (504, "upstream_timeout")
    place.vendor.say("the end")
    assert place.events("token.redeemed")[0].reason == "upstream_timeout"


def test_a_stream_that_falls_silent_breaks_off(place: Place) -> None:
    async def fall_silent(_request: Request, peer: Peer) -> None:
        await peer.begin_chunks()
        await peer.chunk(b"data: one\n\n")
        await peer.until("the end")

    place.vendor.behave = fall_silent
    place.wait_for_services(0.3)

    with place.stream() as answer, pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()

    place.vendor.say("the end")
    assert broken.value.partial == b"data: one\n\n"
    assert place.events("token.redeemed")[0].reason == "upstream_timeout"


async def close_at_once(_request: Request, peer: Peer) -> None:
    peer.writer.close()


async def close_in_the_head(_request: Request, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    peer.writer.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST"])
def test_a_call_whose_connection_dies_is_not_made_again(place: Place, method: str) -> None:
    assert place.ask().status == 200
    place.vendor.behave = close_at_once

    answer = place.ask(method, body=None if method in {"GET", "HEAD"} else b"{}")

    assert answer.status == 502
    assert [request.method for request in place.vendor.requests] == ["GET", method]
    assert place.vendor.connections == 1


async def promise_more(_request: Request, peer: Peer) -> None:
    await peer.head(200, {"Content-Length": "100"})
    await peer.send(b"only this")
    peer.writer.close()


async def talk_nonsense(_request: Request, peer: Peer) -> None:
    await peer.send(b"220 smtp.vendor.test ESMTP\r\n\r\n")
    peer.writer.close()


async def claim_two_lengths(_request: Request, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello")


async def claim_length_and_chunks(_request: Request, peer: Peer) -> None:
    await peer.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )


async def send_an_endless_header(_request: Request, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n")


async def use_a_strange_status(_request: Request, peer: Peer) -> None:
    await peer.answer(b"{}", 799)


async def switch_protocols(_request: Request, peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (close_at_once, "upstream_failed"),
        (close_in_the_head, "upstream_failed"),
        (promise_more, "upstream_failed"),
        (talk_nonsense, "unreadable_answer"),
        (claim_two_lengths, "unreadable_answer"),
        (claim_length_and_chunks, "unreadable_answer"),
        (send_an_endless_header, "unreadable_answer"),
        (use_a_strange_status, "unreadable_answer"),
        (switch_protocols, "unreadable_answer"),
    ],
)
def test_an_answer_that_is_none_is_a_502(
    place: Place, behave: Callable[[Request, Peer], Awaitable[None]], code: str
) -> None:
    place.vendor.behave = behave

    answer = place.ask("POST", body=b"{}")

    assert (answer.status, answer.code) == (502, code)
    assert place.events("token.redeemed")[0].reason == code
    assert not TokenUse.objects.exists()


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "of a known length"])
def test_a_service_that_dies_in_the_middle_leaves_an_answer_without_an_end(place: Place, chunked: bool) -> None:  # noqa: FBT001
    async def die(_request: Request, peer: Peer) -> None:
        if chunked:
            await peer.begin_chunks()
            await peer.chunk(b"data: one\n\n")
        else:
            await peer.head(200, {"Content-Length": "1000000"})
            await peer.send(b"data: one\n\n")
        peer.writer.transport.abort()

    place.vendor.behave = die

    with place.stream() as answer, pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()

    assert broken.value.partial == b"data: one\n\n"
    event = place.events("token.redeemed")[0]
    assert (event.status, event.reason, event.details["bytes_in"]) == (200, "upstream_failed", 11)


def test_a_service_that_is_not_there_uses_no_token_up(place: Place) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        BrokerService.objects.update(base_url=f"https://localhost:{closed.getsockname()[1]}")
        token = place.token(max_uses=1)

        answer = place.ask(token=token)

        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "upstream_unavailable", "1")
    assert place.events("token.refused")[0].reason == "upstream_unavailable"
    BrokerService.objects.update(base_url=place.vendor.base_url)
    assert place.ask(token=token).status == 200


def test_a_certificate_that_nobody_vouches_for_ends_the_call_before_anything_is_sent(
    place: Place, settings: Any, tmp_path: Path
) -> None:
    with vendors.running(tmp_path) as stranger:
        BrokerService.objects.update(base_url=stranger.base_url)

        assert place.ask().code == "upstream_unavailable"

        assert stranger.heads == []
    # Right authority, other name.
    BrokerService.objects.update(base_url=place.vendor.base_url.replace("localhost", "127.0.0.1"))
    assert place.ask().code == "upstream_unavailable"
    assert place.vendor.heads == []


@pytest.mark.parametrize(
    "base_url", ["https://10.255.0.1", "https://127.0.0.1:{port}", "https://localhost:{port}", "https://[::1]:{port}"]
)
def test_a_service_that_may_not_be_private_is_not_reached_there(place: Place, base_url: str) -> None:
    BrokerService.objects.update(base_url=base_url.format(port=place.vendor.port), private=False)

    assert place.ask().code == "upstream_unavailable"
    assert place.vendor.connections == 0


def test_a_private_service_is_reached_in_granted_networks_only(place: Place, settings: Any) -> None:
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, broker_networks=())

    assert place.ask().code == "upstream_unavailable"
    assert place.vendor.connections == 0


def test_proxies_of_the_environment_are_not_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    assert place.ask().status == 200


def test_cookies_are_not_kept(place: Place) -> None:
    async def set_one(_request: Request, peer: Peer) -> None:
        await peer.answer(b"{}", headers={"Set-Cookie": "a=b; Path=/"})

    place.vendor.behave = set_one

    assert place.ask().status == place.ask().status == 200
    assert all("cookie" not in request.headers for request in place.vendor.requests)


SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"X: a\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ],
)
def test_no_second_request_gets_through_inside_of_one(place: Place, framing: bytes) -> None:
    head = (
        b"POST /vendor/v1/things HTTP/1.1\r\nHost: broker.gatehouse.internal\r\n"
        b"Gatehouse-Sandbox-Id: %s\r\nGatehouse-Sandbox-Generation: 1\r\nAuthorization: Bearer %s\r\n%s\r\n"
    ) % (ALICE.encode(), place.token().encode(), framing)
    connection = Connection(place.web.broker)
    connection.connect()
    connection.sock.sendall(head + b"0\r\n\r\n" + SMUGGLED)

    answered = connection.sock.recv(65_536)
    connection.close()

    assert not answered.startswith(b"HTTP/1.1 200")
    assert all(request.target == "/v1/things" and request.body == b"" for request in place.vendor.requests)


def test_a_field_with_a_line_break_does_not_become_two(place: Place) -> None:
    connection = Connection(place.web.broker)
    connection.connect()
    connection.sock.sendall(
        b"GET /vendor/v1 HTTP/1.1\r\nHost: x\r\nGatehouse-Sandbox-Id: ialice\r\nGatehouse-Sandbox-Generation: 1\r\n"
        b"Authorization: Bearer " + place.token().encode() + b"\r\nUser-Agent: a\rX-Api-Key: b\r\n\r\n"
    )
    answered = connection.sock.recv(65_536)
    connection.close()

    assert b" 400 " in answered.split(b"\r\n")[0]
    assert place.vendor.requests == []


def test_an_error_shows_nothing_of_the_secret_in_the_logs(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for behave in (close_at_once, talk_nonsense, send_an_endless_header):
        place.vendor.behave = behave
        assert place.ask("POST", body=b"{}").status == 502
    place.events("token.redeemed", 3)

    assert KEY not in caplog.text
