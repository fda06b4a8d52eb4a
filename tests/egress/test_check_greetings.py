"""TLS through tunnels: the name in the greeting must be the one that was judged, and be readable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.egress import greetings, nets
from tests.egress.place import document
from tests.egress.servers import certificate, echo, web

if TYPE_CHECKING:
    from tests.egress.conftest import Place
    from tests.egress.place import Client
    from tests.egress.servers import Server

API = "api.allowed.test"


@pytest.fixture
async def api(place: Place) -> Server:
    """A server that writes down what reaches it before any TLS."""
    return await place.server(nets.API, 443, echo)


async def _refused(place: Place, client: Client, api: Server, reason: str) -> None:
    """The tunnel ends, the reason is recorded, and nothing went to the server."""
    assert await client.rest() == b""
    event = await place.node.event(code="egress.denied")
    assert event["reason"] == reason
    assert event["details"]["host"] == API
    assert api.connections == 0


async def test_passes_tls_to_the_host_that_was_judged(place: Place) -> None:
    server, trust = certificate(place.directory, API)
    await place.server(nets.API, 443, web, server)
    client = await place.alice.tunnel(f"{API}:443")
    await client.writer.start_tls(trust, server_hostname=API)
    client.send(b"GET / HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
    status, body = await client.answer()
    assert (status, body[:5]) == (200, b"GET /")
    client.close()
    details = (await place.node.event(code="egress.closed"))["details"]
    assert details["protocol"] == "tls"
    assert details["sni"] == API
    assert details["rule"] == f"{API}:443"
    assert details["address"] == nets.API


@pytest.mark.parametrize("authority", ["API.Allowed.TEST:443", "api.allowed.test.:443"])
async def test_takes_a_name_in_any_case_and_with_its_dot(place: Place, api: Server, authority: str) -> None:
    client = await place.alice.tunnel(authority)
    hello = greetings.greeting(API)
    client.send(hello)
    assert await client.exactly(len(hello)) == hello
    client.close()
    assert (await place.node.event(code="egress.closed"))["details"]["rule"] == f"{API}:443"


async def test_takes_a_wildcards_names_and_no_other(place: Place, api: Server) -> None:
    client = await place.alice.tunnel("a.wild.allowed.test:443")
    hello = greetings.greeting("a.wild.allowed.test")
    client.send(hello)
    assert await client.exactly(len(hello)) == hello
    other = await place.alice.tunnel("a.wild.allowed.test:443")
    other.send(greetings.greeting("b.wild.allowed.test"))
    assert await other.rest() == b""
    assert (await place.node.event(code="egress.denied"))["reason"] == "sni_mismatch"


@pytest.mark.parametrize("at", [1, 4, 40, 200])
async def test_reads_a_greeting_in_two_records(place: Place, api: Server, at: int) -> None:
    client = await place.alice.tunnel(f"{API}:443")
    hello = greetings.in_two_records(greetings.greeting(API), at)
    client.send(hello)
    assert await client.exactly(len(hello)) == hello


async def test_reads_a_greeting_byte_by_byte(place: Place, api: Server) -> None:
    client = await place.alice.tunnel(f"{API}:443")
    hello = greetings.greeting(API)
    for place_of in range(len(hello)):
        client.send(hello[place_of : place_of + 1])
        await client.writer.drain()
        await asyncio.sleep(0)
    assert await client.exactly(len(hello)) == hello


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        pytest.param(greetings.greeting("evil.test"), "sni_mismatch", id="another name"),
        pytest.param(greetings.greeting(None), "sni_missing", id="no name"),
        pytest.param(greetings.named(b"45.79.1.1"), "bad_host", id="an address"),
        pytest.param(greetings.named(b"api.allowed.test\0.evil.test"), "bad_host", id="a NUL"),
        pytest.param(greetings.named(b"api.allowed.test.."), "bad_host", id="two dots"),
        pytest.param(greetings.named("äpi.allowed.test".encode()), "bad_host", id="no ASCII"),
        pytest.param(greetings.encrypted(API), "ech", id="an encrypted name"),
        pytest.param(greetings.encrypted("evil.test"), "ech", id="an encrypted name behind another"),
        pytest.param(greetings.with_extension(greetings.greeting(API), 0, b""), "not_tls", id="an empty name list"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls", id="ssh"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n", "not_tls", id="http"),
        pytest.param(b"\x16\x03\x01\x00\x00", "not_tls", id="an empty record"),
        pytest.param(b"\x16\x02\x01\x00\x05hello", "not_tls", id="an old version"),
        pytest.param(b"\x16\x03\x01\x40\x01", "not_tls", id="a record too long"),
        pytest.param(b"\x80\x2e\x01\x03\x01", "not_tls", id="SSLv2"),
    ],
)
async def test_refuses_other_greetings(place: Place, api: Server, hello: bytes, reason: str) -> None:
    client = await place.alice.tunnel(f"{API}:443")
    client.send(hello)
    await _refused(place, client, api, reason)


async def test_refuses_a_greeting_without_end(place: Place, api: Server) -> None:
    client = await place.alice.tunnel(f"{API}:443")
    client.send(greetings.with_extension(greetings.greeting(API), 0x1234, bytes(15_000)))
    assert api.connections == 0
    endless = await place.alice.tunnel(f"{API}:443")
    endless.send(
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16_380) + (b"\x16\x03\x01\x40\x00" + bytes(16_384)) * 2
    )
    assert await endless.rest() == b""
    assert (await place.node.event(code="egress.denied"))["reason"] == "not_tls"


async def test_refuses_a_name_that_is_longer_than_any(place: Place, api: Server) -> None:
    client = await place.alice.tunnel(f"{API}:443")
    client.send(greetings.named(b"a" * 10_000))
    await _refused(place, client, api, "not_tls")


async def test_passes_an_encrypted_name_where_the_policy_lets_it(place: Place, api: Server) -> None:
    await place.node.put(document(version=2, tls={"ech": "allow"}))
    client = await place.alice.tunnel(f"{API}:443")
    hello = greetings.encrypted(API)
    client.send(hello)
    assert await client.exactly(len(hello)) == hello


async def test_passes_any_name_where_the_policy_only_logs_it(place: Place, api: Server) -> None:
    await place.node.put(document(version=2, tls={"sni": "log"}))
    client = await place.alice.tunnel(f"{API}:443")
    hello = greetings.greeting("elsewhere.test")
    client.send(hello)
    assert await client.exactly(len(hello)) == hello
    client.close()
    assert (await place.node.event(code="egress.closed"))["details"]["sni"] == "elsewhere.test"


async def test_refuses_a_denied_name_at_an_allowed_address(place: Place, api: Server) -> None:
    await place.node.put(document(f"{nets.API}:443/tls", "!evil.test:443", version=2, deny=["worse.test:1-65535"]))
    for name, reason in (("evil.test", "no_rule"), ("worse.test", "operator_deny")):
        client = await place.alice.tunnel(f"{nets.API}:443")
        client.send(greetings.greeting(name))
        assert await client.rest() == b""
        assert (await place.node.event(code="egress.denied", reason=reason))["details"]["sni"] == name
    assert api.connections == 0
    client = await place.alice.tunnel(f"{nets.API}:443")
    hello = greetings.greeting("other.test")
    client.send(hello)
    assert await client.exactly(len(hello)) == hello
