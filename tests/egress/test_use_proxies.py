"""Proxies behind egress: the operator's, the user's SOCKS5, and the reserved name of the broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.egress import greetings, nets
from tests.egress.place import connect_head, document
from tests.egress.servers import Server, certificate, echo, web

if TYPE_CHECKING:
    import asyncio

    from tests.egress.conftest import Place
    from tests.egress.servers import Handler

DB = "db.allowed.test:5432"
VIA = f"{nets.CORPORATE}:3128"


def corporate(answer: bytes = b"HTTP/1.1 200 OK\r\nVia: 1.1 corp\r\n\r\n") -> Handler:
    """A proxy that answers CONNECT like this and then echoes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await echo(reader, writer)

    return handler


def _credentials(place: Place, data: object) -> None:
    path = place.process.home / "egress" / "via.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))


async def test_asks_the_corporate_proxy_with_credentials_that_stay_outside(place: Place) -> None:
    proxy = await place.server(nets.CORPORATE, 3128, corporate())
    _credentials(place, {VIA: {"username": "corp", "password": "secret"}})
    await place.node.put(document(version=2, via=VIA))
    client = await place.alice.tunnel(DB)
    client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    expected = b"CONNECT db.allowed.test:5432 HTTP/1.1\r\nHost: db.allowed.test:5432\r\n"
    assert proxy.received == expected + b"Proxy-Authorization: Basic Y29ycDpzZWNyZXQ=\r\n\r\nhello"
    # The proxy resolves names itself.
    assert place.names.asked == []


async def test_sends_whole_urls_to_the_corporate_proxy(place: Place) -> None:
    proxy = await place.server(nets.CORPORATE, 3128, web)
    _credentials(place, {VIA: {"username": "corp", "password": "secret"}})
    await place.node.put(document(version=2, via=VIA))
    client = await place.alice.ask(b"GET http://plain.allowed.test/a HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
    assert (await client.answer())[0] == 200
    assert proxy.received.startswith(b"GET http://plain.allowed.test/a HTTP/1.1\r\nHost: plain.allowed.test\r\n")
    assert b"Proxy-Authorization: Basic Y29ycDpzZWNyZXQ=\r\n" in proxy.received


async def test_judges_names_before_it_asks_the_corporate_proxy(place: Place) -> None:
    proxy = await place.server(nets.CORPORATE, 3128, corporate())
    await place.node.put(document(version=2, via=VIA))
    client = await place.alice.ask(connect_head("evil.test:443"))
    assert await client.refusal() == (403, "no_rule")
    assert proxy.connections == 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Login\r\n\r\n", b"garbage\r\n\r\n", b"x" * 20_000, b""])
async def test_passes_nothing_where_the_corporate_proxy_refuses(place: Place, answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    await place.server(nets.CORPORATE, 3128, handler)
    await place.node.put(document(version=2, via=VIA))
    client = await place.alice.ask(connect_head(DB))
    assert await client.refusal() == (502, "connect_failed")


class Socks:
    """A SOCKS5 proxy that notes what it was asked for, and then echoes."""

    def __init__(self, *, login: tuple[str, str] | None = None, status: int = 0) -> None:
        self.login = login
        self.status = status
        self.asked: list[tuple[int, bytes, int]] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        _, count = await reader.readexactly(2)
        await reader.readexactly(count)
        writer.write(b"\x05\x00" if self.login is None else b"\x05\x02")
        if self.login is not None:
            _, size = await reader.readexactly(2)
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.logins.append((user, password))
            writer.write(b"\x01\x00" if (user.decode(), password.decode()) == self.login else b"\x01\x01")
        _, _, _, kind = await reader.readexactly(4)
        size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host = await reader.readexactly(size)
        self.asked.append((kind, host, int.from_bytes(await reader.readexactly(2), "big")))
        writer.write(bytes([5, self.status, 0, 1]) + bytes(6))
        await echo(reader, writer)


async def test_lets_the_users_proxy_find_names(place: Place) -> None:
    socks = Socks(login=("u", "p"))
    await place.server(nets.SOCKS, 1080, socks.handle)
    proxy = {"address": f"{nets.SOCKS}:1080", "username": "u", "password": "p"}
    await place.node.put(document(version=2, egress_proxy=proxy))
    client = await place.alice.tunnel(DB)
    client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    assert socks.asked == [(3, b"db.allowed.test", 5432)]
    assert place.names.asked == []


async def test_speaks_tls_to_the_users_proxy(place: Place) -> None:
    socks = Socks()
    server, _ = certificate(place.directory, "socks.test")
    await place.server(nets.SOCKS, 1080, socks.handle, server)
    pem = (place.directory / "socks.test.pem").read_text().partition("-----BEGIN PRIVATE")[0]
    tls = {"enabled": True, "serverName": "socks.test", "caCert": pem}
    await place.node.put(document(version=2, egress_proxy={"address": f"{nets.SOCKS}:1080", "tls": tls}))
    client = await place.alice.tunnel(DB)
    client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    client.close()
    await place.node.event(code="egress.closed")


async def test_passes_nothing_to_a_proxy_whose_certificate_is_not_its_own(place: Place) -> None:
    socks = Socks()
    server, _ = certificate(place.directory, "socks.test")
    await place.server(nets.SOCKS, 1080, socks.handle, server)
    tls = {"enabled": True, "serverName": "socks.test"}
    await place.node.put(document(version=2, egress_proxy={"address": f"{nets.SOCKS}:1080", "tls": tls}))
    client = await place.alice.ask(connect_head(DB))
    assert await client.refusal() == (502, "tls_failed")
    assert socks.asked == []


@pytest.mark.parametrize(
    "changes", [{"login": ("u", "other")}, {"status": 5}], ids=["refuses the login", "refuses the host"]
)
async def test_passes_nothing_where_the_users_proxy_refuses(place: Place, changes: dict[str, object]) -> None:
    socks = Socks(**changes)  # type: ignore[arg-type]
    await place.server(nets.SOCKS, 1080, socks.handle)
    proxy = {"address": f"{nets.SOCKS}:1080", **({"username": "u", "password": "p"} if socks.login else {})}
    await place.node.put(document(version=2, egress_proxy=proxy))
    client = await place.alice.ask(connect_head(DB))
    assert await client.refusal() == (502, "connect_failed")


async def test_uses_no_proxy_at_an_inner_address(place: Place) -> None:
    socks = await place.server(nets.INTERNAL, 1080, echo)
    await place.node.put(document(version=2, egress_proxy={"address": f"{nets.INTERNAL}:1080"}))
    client = await place.alice.ask(connect_head(DB))
    assert await client.refusal() == (403, "resolved_private")
    assert socks.connections == 0


async def test_judges_greetings_before_it_asks_the_users_proxy(place: Place) -> None:
    socks = await place.server(nets.SOCKS, 1080, echo)
    await place.node.put(document(version=2, egress_proxy={"address": f"{nets.SOCKS}:1080"}))
    client = await place.alice.tunnel("api.allowed.test:443")
    client.send(greetings.greeting("evil.test"))
    assert await client.rest() == b""
    assert socks.connections == 0


BROKER = b"GET /openai/v1 HTTP/1.1\r\nHost: broker.gatehouse.internal\r\n"


async def _broker(place: Place) -> Server:
    made = Server(web)
    await made.start_unix(place.process.home / "broker.sock")
    place.servers.append(made)
    return made


@pytest.mark.parametrize("tunnelled", [True, False], ids=["tunnel", "absolute form"])
async def test_tells_the_broker_who_asks(place: Place, tunnelled: bool) -> None:  # noqa: FBT001
    await _broker(place)
    await place.node.put(document("api.allowed.test:443", version=2))
    request = BROKER + b"gatehouse-sandbox-id: ibob\r\nAuthorization: Bearer t\r\n\r\n"
    if tunnelled:
        client = await place.alice.tunnel("broker.gatehouse.internal:80")
        client.send(request)
    else:
        client = await place.alice.ask(request.replace(b"GET /", b"GET http://broker.gatehouse.internal/"))
    status, seen = await client.answer()
    assert status == 200
    assert seen == (
        b"GET /openai/v1 HTTP/1.1\r\nHost: broker.gatehouse.internal\r\nAuthorization: Bearer t\r\n"
        b"Gatehouse-Sandbox-Id: ialice\r\nGatehouse-Sandbox-Generation: %d\r\n\r\n" % place.node.generation
    )


async def test_tells_the_broker_nothing_of_the_corporate_proxy(place: Place) -> None:
    await _broker(place)
    await place.server(nets.CORPORATE, 3128, web)
    _credentials(place, {VIA: {"username": "corp", "password": "secret"}})
    await place.node.put(document(version=2, via=VIA))
    client = await place.alice.ask(b"GET http://plain.allowed.test/a HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
    assert (await client.answer())[0] == 200
    client.send(BROKER.replace(b"GET /", b"GET http://broker.gatehouse.internal/") + b"\r\n")
    status, seen = await client.answer()
    assert status == 200
    assert seen.startswith(b"GET /openai/v1 HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in seen


async def test_says_that_there_is_no_broker(place: Place) -> None:
    (place.process.home / "broker.sock").unlink(missing_ok=True)
    client = await place.alice.tunnel("broker.gatehouse.internal:80")
    client.send(BROKER + b"\r\n")
    assert await client.refusal() == (503, "connect_failed")
