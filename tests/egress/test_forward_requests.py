"""Plain HTTP through egress: each request judged, and written anew in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.place import document
from tests.egress.servers import web

if TYPE_CHECKING:
    import asyncio

    from tests.egress.conftest import Place

HOST = b"Host: plain.allowed.test\r\n"


def get(path: str = "/", *headers: bytes) -> bytes:
    """Return a request in absolute form."""
    return f"GET http://plain.allowed.test{path} HTTP/1.1\r\n".encode() + HOST + b"".join(headers) + b"\r\n"


async def test_writes_a_request_anew_for_the_server(place: Place) -> None:
    await place.server(nets.API, 80, web)
    client = await place.alice.ask(
        get(
            "/a?b=c",
            b"Accept: */*\r\nProxy-Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n",
            b"Gatehouse-Sandbox-Id: ibob\r\nUpgrade: h2c\r\nX-Mixed: Kept\r\n",
        )
    )
    status, body = await client.answer()
    assert status == 200
    assert body == b"GET /a?b=c HTTP/1.1\r\nHost: plain.allowed.test\r\nAccept: */*\r\nX-Mixed: Kept\r\n\r\n"
    client.close()
    details = (await place.node.event(code="egress.closed"))["details"]
    assert details["method"] == "GET"
    assert details["protocol"] == "http"
    assert details["via"] == "proxy"
    assert details["address"] == nets.API


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    ],
    ids=["length", "chunks"],
)
async def test_passes_a_body_on(place: Place, framing: bytes, body: bytes) -> None:
    await place.server(nets.API, 80, web)
    request = b"POST http://plain.allowed.test/ HTTP/1.1\r\n" + HOST + framing + b"\r\n" + body
    client = await place.alice.ask(request + get("/next"))
    status, seen = await client.answer()
    assert status == 200
    assert seen.endswith(b"hello")
    assert (await client.answer())[1].startswith(b"GET /next ")


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 5\r\n", b"hello"), (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")],
    ids=["length", "chunks"],
)
async def test_passes_a_body_on_that_comes_after_its_head(place: Place, framing: bytes, body: bytes) -> None:
    server = await place.server(nets.API, 80, web)
    client = await place.alice.ask(b"POST http://plain.allowed.test/ HTTP/1.1\r\n" + HOST + framing + b"\r\n")
    await server.began.wait()
    client.send(body)
    status, seen = await client.answer()
    assert (status, seen[-5:]) == (200, b"hello")


async def test_keeps_both_connections_for_further_requests(place: Place) -> None:
    server = await place.server(nets.API, 80, web)
    client = await place.alice.ask(get("/1") + get("/2"))
    assert (await client.answer())[1].startswith(b"GET /1 ")
    assert (await client.answer())[1].startswith(b"GET /2 ")
    client.send(get("/3"))
    assert (await client.answer())[1].startswith(b"GET /3 ")
    assert server.connections == 1


async def test_connects_again_when_the_server_has_closed(place: Place) -> None:
    server = await place.server(nets.API, 80, web)
    client = await place.alice.ask(get("/close"))
    assert (await client.answer())[0] == 200
    client.send(get("/2"))
    assert (await client.answer())[1].startswith(b"GET /2 ")
    assert server.connections == 2


async def test_connects_again_when_the_server_closed_without_a_word(place: Place) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server = await place.server(nets.API, 80, once)
    client = await place.alice.ask(get())
    assert await client.answer() == (200, b"ok")
    await server.ended.wait()
    client.send(get())
    assert await client.answer() == (200, b"ok")
    assert server.connections == 2


async def test_gives_up_a_request_whose_client_went_away(place: Place) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read():
            pass

    server = await place.server(nets.API, 80, silent)
    client = await place.alice.ask(get())
    await server.began.wait()
    client.close()
    await server.ended.wait()
    assert (await place.node.event(code="egress.closed"))["details"]["closed"] == "reset"


async def test_judges_each_request_of_a_connection(place: Place) -> None:
    server = await place.server(nets.API, 80, web)
    evil = await place.server(nets.EVIL, 80, web)
    client = await place.alice.ask(get())
    assert (await client.answer())[0] == 200
    client.send(b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert await client.refusal() == (403, "no_rule")
    assert await client.rest() == b""
    assert (server.connections, evil.connections) == (1, 0)
    assert (await place.node.event(code="egress.denied"))["details"]["host"] == "evil.test"
    assert (await place.node.event(code="egress.closed"))["details"]["host"] == "plain.allowed.test"


async def test_holds_a_tunnel_to_port_80_to_its_host(place: Place) -> None:
    server = await place.server(nets.API, 80, web)
    client = await place.alice.tunnel("plain.allowed.test:80", "Gatehouse-Via: transparent")
    client.send(b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (await client.answer())[1].startswith(b"GET /1 HTTP/1.1\r\nHost: plain.allowed.test\r\n")
    client.send(b"GET /2 HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert await client.refusal() == (403, "host_mismatch")
    assert await client.rest() == b""
    assert b"/2" not in server.received
    assert (await place.node.event(code="egress.closed"))["details"]["via"] == "transparent"


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"SSH-2.0-x\r\n\r\n", "not_http"),
        (b"\x16\x03\x01\x00\x05hello", "not_http"),
        (b"GET / HTTP/1.0\r\n\r\n", "bad_host"),
        (b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n\r\n", "loop"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_http"),
    ],
)
async def test_lets_nothing_but_http_through_port_80(place: Place, first: bytes, reason: str) -> None:
    server = await place.server(nets.API, 80, web)
    client = await place.alice.tunnel("plain.allowed.test:80")
    client.send(first)
    await client.rest()
    assert (await place.node.event(code="egress.denied"))["reason"] == reason
    assert server.received == b""


async def test_refuses_trailers(place: Place) -> None:
    server = await place.server(nets.API, 80, web)
    body = b"1\r\na\r\n0\r\nX-Late: 1\r\n\r\n"
    request = b"POST http://plain.allowed.test/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    client = await place.alice.ask(request + body)
    await client.rest()
    assert (await place.node.event(code="egress.denied"))["reason"] == "smuggling"
    assert b"X-Late" not in server.received


async def _websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
    while data := await reader.read():
        writer.write(data)


_UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


async def test_refuses_a_websocket_where_the_rule_says_http(place: Place) -> None:
    server = await place.server(nets.API, 80, _websocket)
    client = await place.alice.ask(get("/", _UPGRADE))
    assert await client.refusal() == (403, "upgrade")
    assert server.received == b""


async def test_passes_a_websocket_where_the_rule_says_ws(place: Place) -> None:
    await place.node.put(document("plain.allowed.test:80/ws", version=2))
    server = await place.server(nets.API, 80, _websocket)
    client = await place.alice.ask(get("/", _UPGRADE))
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    assert await client.exactly(5) == b"first"
    client.send(b"\x81\x00")
    assert await client.exactly(2) == b"\x81\x00"
    assert b"Sec-WebSocket-Version: 13\r\n" in server.received
    client.close()
    assert (await place.node.event(code="egress.closed"))["details"]["protocol"] == "ws"


def _answering(data: bytes) -> object:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return handler


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"",
    ],
)
async def test_passes_no_answer_on_that_it_does_not_understand(place: Place, answer: bytes) -> None:
    await place.server(nets.API, 80, _answering(answer))  # type: ignore[arg-type]
    client = await place.alice.ask(get())
    assert await client.refusal() == (502, "connect_failed")


async def test_passes_answers_without_a_length_and_chunks_on(place: Place) -> None:
    await place.server(nets.API, 80, _answering(b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nuntil the end"))  # type: ignore[arg-type]
    client = await place.alice.ask(get())
    assert b"X: 1\r\n" in await client.head()
    assert await client.exactly(23) == b"d\r\nuntil the end\r\n0\r\n\r\n"
