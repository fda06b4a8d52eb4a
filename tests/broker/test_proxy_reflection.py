"""An answer that holds the secret does not reach the sandbox with it, however it is spelt and wherever it is cut."""

from __future__ import annotations

import gzip
import http.client
from typing import TYPE_CHECKING

import pytest

from corekit.needles import MARKER
from tests.broker.proxyplace import KEY, Place, one_vendor, place, spellings, vendor

if TYPE_CHECKING:
    from tests.broker.vendor import Peer, Request

__all__ = ["one_vendor", "place", "vendor"]

pytestmark = pytest.mark.django_db(transaction=True)
SPELLINGS = spellings()
SMALL, LARGE = 1000, 300_000


def assert_recorded(place: Place) -> None:
    """Assert that the ledger has the reflection, with its risk and without the secret."""
    event = place.events("secret.reflected")[0]
    assert (event.sandbox_id, event.risk_score) == ("ialice", 90)
    assert (event.details["service"], event.details["secret_name"]) == ("vendor", "vendor-key")
    place.events("token.redeemed")
    assert not any(spelling.decode() in str(event.details) for spelling in SPELLINGS.values())


def nothing_of_it(body: bytes) -> bool:
    """Say whether no spelling of the secret stands there."""
    return not any(spelling in body for spelling in SPELLINGS.values())


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_short_answer_is_withheld(place: Place, spelling: bytes) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.answer(b"You sent " + spelling + b".", 400)

    place.vendor.behave = echo

    answer = place.ask()

    assert (answer.status, answer.code) == (502, "secret_reflected")
    assert nothing_of_it(answer.body)
    assert answer.headers["x-should-retry"] == "false"
    assert_recorded(place)
    assert place.events("token.redeemed")[0].reason == "secret_reflected"


def test_a_long_answer_of_a_known_length_breaks_off(place: Place) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.answer(b"a" * LARGE + KEY.encode() + b"b" * LARGE)

    place.vendor.behave = echo

    with place.stream() as answer, pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()

    assert 0 < len(broken.value.partial) <= LARGE
    assert set(broken.value.partial) == {ord("a")}
    assert_recorded(place)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_in_a_stream_it_is_replaced(place: Place, spelling: bytes) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.chunked(b"data: one\n\n", b"data: " + spelling + b"\n\n", b"data: two\n\n")

    place.vendor.behave = echo

    answer = place.ask()

    assert answer.status == 200
    assert nothing_of_it(answer.body)
    assert MARKER in answer.body
    assert answer.body.startswith(b"data: one\n\ndata: ")
    assert answer.body.endswith(b"\n\ndata: two\n\n")
    assert_recorded(place)


def test_in_a_stream_it_is_replaced_wherever_that_is_cut(place: Place) -> None:
    async def drip(_request: Request, peer: Peer) -> None:
        await peer.begin_chunks()
        for byte in b"data: " + KEY.encode() + b"\n\n":
            await peer.chunk(bytes([byte]))
        await peer.chunk(b"")

    place.vendor.behave = drip

    assert place.ask().body == b"data: " + MARKER + b"\n\n"
    assert_recorded(place)


def test_across_the_borders_of_pieces_it_is_replaced(place: Place) -> None:
    async def straddle(_request: Request, peer: Peer) -> None:
        await peer.chunked(b"a" * (65_536 - 10) + KEY.encode() + b"b" * 65_536, kind="text/plain")

    place.vendor.behave = straddle

    assert place.ask().body == b"a" * (65_536 - 10) + MARKER + b"b" * 65_536


def test_an_answer_that_ends_with_the_connection_is_looked_through_too(place: Place) -> None:
    async def until_close(_request: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nkey: " + KEY.encode())
        peer.writer.close()

    place.vendor.behave = until_close

    assert place.ask().body == b"key: " + MARKER


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_in_a_header_it_is_replaced(place: Place, spelling: bytes) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.answer(b"{}", headers={"X-Debug": f"auth={spelling.decode()};"})

    place.vendor.behave = echo

    answer = place.ask()

    assert (answer.status, answer.body) == (200, b"{}")
    assert nothing_of_it(answer.headers["x-debug"].encode())
    assert MARKER.decode() in answer.headers["x-debug"]
    assert_recorded(place)


def test_in_a_header_that_does_not_come_back_it_is_recorded(place: Place) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.answer(b"{}", headers={"Set-Cookie": f"key={KEY}"})

    place.vendor.behave = echo

    assert "set-cookie" not in place.ask().headers
    assert_recorded(place)


def test_a_header_named_by_it_stays_behind(place: Place) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.answer(b"{}", headers={f"X-{KEY.encode().hex()}": "1"})

    place.vendor.behave = echo

    assert [name for name in place.ask().headers if KEY.encode().hex() in name] == []
    assert_recorded(place)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "identity, gzip"])
def test_a_compressed_answer_is_withheld(place: Place, encoding: str) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.answer(gzip.compress(KEY.encode()), headers={"Content-Encoding": encoding})

    place.vendor.behave = echo

    answer = place.ask()

    assert (answer.status, answer.code) == (502, "unreadable_answer")
    assert place.vendor.requests[0].headers["accept-encoding"] == "identity"


def test_an_answer_compressed_by_its_transfer_is_withheld(place: Place) -> None:
    async def echo(_request: Request, peer: Peer) -> None:
        await peer.head(200, {"Transfer-Encoding": "gzip, chunked"})
        await peer.chunk(gzip.compress(KEY.encode()))
        await peer.chunk(b"")

    place.vendor.behave = echo

    assert (place.ask().status, place.ask().code) == (502, "unreadable_answer")


@pytest.mark.parametrize("status", [401, 403, 407])
def test_what_a_service_says_about_a_bad_secret_is_replaced(place: Place, status: int) -> None:
    async def refuse(_request: Request, peer: Peer) -> None:
        message = f"Incorrect API key provided: {KEY[:8]}***{KEY[-4:]}."
        await peer.answer({"error": {"message": message}}, status, {"WWW-Authenticate": "Bearer"})

    place.vendor.behave = refuse

    answer = place.ask()

    assert (answer.status, answer.code) == (502, "upstream_refused")
    assert KEY[-4:].encode() not in answer.body
    assert "www-authenticate" not in answer.headers
    event = place.events("token.redeemed")[0]
    assert (event.status, event.reason) == (status, "upstream_refused")
