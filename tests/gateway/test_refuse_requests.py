"""A request that two readers could understand differently ends its connection, and nobody behind hears of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, Place, read_answer, request_bytes
from tests.gateway.sites import Site

HOST = f"8080-{ALICE}.sbx.example"
AGENT = f"49983-{ALICE}.sbx.example"
NEXT = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"

MALFORMED = {
    "length and coding": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0",
    "coding and length": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0",
    "two codings": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "unknown coding": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding before chunked": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding after chunked": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "space before colon": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "odd space in coding": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding in 1.0": "POST / HTTP/1.0\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "same length twice": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two lengths": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "list of lengths": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 5, 5\r\n\r\nhello",
    "signed length": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: +5\r\n\r\nhello",
    "negative length": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: -5\r\n\r\nhello",
    "underscored length": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 1_0\r\n\r\nhello",
    "endless length": "POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
    "negative chunk": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "endless chunk": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nxx",
    "prefixed chunk": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "chunk with bare ends": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "chunk too long": "POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    "bare line ends": "GET / HTTP/1.1\nHost: H\n\n",
    "folded field": "GET / HTTP/1.1\r\nHost: H\r\nX: a\r\n b\r\n\r\n",
    "zero byte": "GET / HTTP/1.1\r\nHost: H\r\nX: a\0b\r\n\r\n",
    "bare return": "GET / HTTP/1.1\r\nHost: H\r\nX: a\rb\r\n\r\n",
    "zero byte in path": "GET /\0 HTTP/1.1\r\nHost: H\r\n\r\n",
    "space in path": "GET / x HTTP/1.1\r\nHost: H\r\n\r\n",
    "fragment": "GET /a#b HTTP/1.1\r\nHost: H\r\n\r\n",
    "absolute form": f"GET http://{HOST}/ HTTP/1.1\r\nHost: H\r\n\r\n",
    "authority form": "CONNECT 127.0.0.1:8080 HTTP/1.1\r\nHost: H\r\n\r\n",
    "version 0.9": "GET /\r\n\r\n",
    "version 1.2": "GET / HTTP/1.2\r\nHost: H\r\n\r\n",
    "version 2.0": "GET / HTTP/2.0\r\nHost: H\r\n\r\n",
    "preface of version 2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "two hosts": "GET / HTTP/1.1\r\nHost: H\r\nHost: H\r\n\r\n",
    "unknown method": "FROB / HTTP/1.1\r\nHost: H\r\n\r\n",
    "upgrade with a body": (
        "GET / HTTP/1.1\r\nHost: H\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"
    ),
}
LINES_ENDED = {"fragment", "absolute form", "authority form"}


@pytest.fixture
def site(place: Place) -> Site:
    """A server on port 8080 of Alice's sandbox."""
    site = Site()
    place.guest.open_port(8080, site)
    return site


async def exchange(place: Place, data: bytes) -> bytes:
    """Send bytes and read all that comes back, to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(data)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("host", [HOST, "localhost"])
@pytest.mark.parametrize("case", [case for case in MALFORMED if case not in LINES_ENDED])
async def test_it_ends_the_connection(place: Place, site: Site, case: str, host: str) -> None:
    answer = await exchange(place, (MALFORMED[case].replace("Host: H\r", f"Host: {host}\r") + NEXT).encode("latin-1"))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert site.requests == []
    assert place.web.requests == []


@pytest.mark.parametrize("case", sorted(LINES_ENDED))
async def test_a_target_that_is_no_path_leads_nowhere(place: Place, site: Site, case: str) -> None:
    text = MALFORMED[case].replace("Host: H\r", f"Host: {HOST}\r\nConnection: close\r")

    answer = await exchange(place, text.encode())

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\nThe request target must be a path\n")
    assert place.guest.requests == []


async def test_an_upgrade_to_something_else_is_an_ordinary_request(place: Place, site: Site) -> None:
    """Java's client asks so on every new plain connection, and uses that on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    asking = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    for more in (asking, {}):
        writer.write(request_bytes("POST / HTTP/1.1", b"hello", Host=HOST, Content_Length="5", **more))
        assert (await read_answer(reader))[2] == b"hello from inside"
    writer.close()

    assert [request.body for request in site.requests] == [b"hello"] * 2
    assert not {"upgrade", "http2-settings"} & site.requests[0].names()


async def test_a_websocket_without_its_connection_field_is_an_ordinary_request(place: Place, site: Site) -> None:
    await place.raw("GET /ws HTTP/1.1", Host=HOST, Upgrade="websocket")

    assert site.requests[0].get("Upgrade") is None


async def test_pipelined_requests_are_answered_in_order(place: Place, site: Site) -> None:
    heads = [f"GET /{number} HTTP/1.1\r\nHost: {HOST}\r\n" for number in range(50)]

    answer = await exchange(place, ("\r\n".join(heads) + "Connection: close\r\n\r\n").encode())

    assert answer.count(b"HTTP/1.1 200 OK") == 50
    assert [request.target for request in site.requests] == [f"/{number}" for number in range(50)]


@pytest.mark.parametrize("name", ["init", "freeze", "unfreeze", "collapse", "fsfreeze", "fsthaw", "upgrade"])
@pytest.mark.parametrize(
    "spelling",
    ["/{0}", "//{0}", "/./{0}", "/files/../{0}", "/files/%2e%2e/{0}", "/{0}/", "/{1}", "/{2}", "/{0};x", "/\\{0}"],
)
async def test_no_spelling_leads_to_a_control_route(place: Place, name: str, spelling: str) -> None:
    path = spelling.format(name, name.upper(), f"%{ord(name[0]):02x}{name[1:]}")

    for headers in ({"Host": AGENT, "X_Access_Token": doubles.token(ALICE, ALICE_KEY)}, place.headers()):
        status, fields, body = await place.raw(f"POST {path}?a=b HTTP/1.1", b"{}", Content_Length="2", **headers)

        assert (status, body) == (404, {"message": "The requested path was not found", "path": path, "code": 404})
        assert fields["content-type"] == "application/json; charset=utf-8"
    assert place.guest.requests == []
