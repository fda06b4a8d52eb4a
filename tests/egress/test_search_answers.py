"""A host that sends the secret back: the sandbox does not see it, and it is recorded."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.inside import BOUND, HOST, PLACEHOLDER, SECRET, request
from tests.egress.servers import says, web

if TYPE_CHECKING:
    from tests.egress.inside import Alice
    from tests.internet.certificates import Authority

MARKER = b"[secret removed]"


async def reflected(alice: Alice) -> None:
    """Check that it is recorded."""
    event = await alice.place.node.event(code="secret.reflected")
    assert (event["decision"], event["details"]["service"]) == ("deny", HOST)
    assert SECRET not in str(alice.place.node.events)


def chunked(*pieces: bytes, head: bytes = b"") -> bytes:
    """Return an answer in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


ENCODED = {
    "as it is": SECRET.encode(),
    "in JSON": SECRET.replace("/", "\\/").encode(),
    "escaped": SECRET.replace("+", "%2B").replace("/", "%2F").encode(),
    "hex": SECRET.encode().hex().encode(),
    "base64": base64.b64encode(SECRET.encode()),
    "basic": base64.b64encode(f"user:{SECRET}".encode()),
}


@pytest.mark.parametrize("encoding", ENCODED)
async def test_in_a_body_it_is_cut_out(alice: Alice, hosts: Authority, encoding: str) -> None:
    text = ENCODED[encoding]
    answer = chunked(b"you said ", text[:7], text[7:], b" to me")
    await alice.place.server(nets.API, 443, says(answer), hosts.context(HOST))
    client = await alice.ask("GET /", "Connection: close")
    await client.head()
    seen = await client.reader.readuntil(b"0\r\n\r\n")
    assert MARKER in seen
    assert text not in seen.replace(b"\r\n", b"")
    assert text[8:-4] not in seen
    await reflected(alice)


async def test_in_a_body_with_a_length_it_ends_the_answer(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, web, hosts.context(HOST))
    client = await alice.ask("GET /echo")
    await client.head()
    seen = await client.rest()
    assert SECRET.encode()[:8] not in seen
    assert SECRET.encode() in server.received
    await reflected(alice)
    assert (await alice.place.node.event(code="egress.denied"))["reason"] == "secret_reflected"


@pytest.mark.parametrize(
    "head",
    [
        f"X-Echo: Bearer {SECRET}\r\n".encode(),
        b"Set-Cookie: k=" + ENCODED["base64"] + b"\r\n",
        b"Location: https://evil.test/?k=" + ENCODED["escaped"] + b"\r\n",
    ],
)
async def test_in_a_header_it_is_cut_out(alice: Alice, hosts: Authority, head: bytes) -> None:
    await alice.place.server(nets.API, 443, says(chunked(b"ok", head=head)), hosts.context(HOST))
    seen = await (await alice.ask()).head()
    assert MARKER in seen
    assert SECRET.encode()[:8] not in seen
    await reflected(alice)


async def test_in_the_status_line_it_is_cut_out(alice: Alice, hosts: Authority) -> None:
    answer = f"HTTP/1.1 401 Bad key {SECRET}\r\nContent-Length: 0\r\n\r\n".encode()
    await alice.place.server(nets.API, 443, says(answer), hosts.context(HOST))
    assert (await (await alice.ask()).head()).startswith(b"HTTP/1.1 401 Bad key [secret removed]\r\n")
    await reflected(alice)


async def test_in_what_is_said_before_the_answer_it_is_cut_out(alice: Alice, hosts: Authority) -> None:
    early = f"HTTP/1.1 103 Early\r\nLink: <{SECRET}>\r\n\r\n".encode()
    await alice.place.server(nets.API, 443, says(early + chunked(b"ok")), hosts.context(HOST))
    client = await alice.ask()
    assert b"Link: <[secret removed]>" in await client.head()
    assert (await client.head()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("status", [102, 103])
async def test_in_the_line_before_the_answer_too(alice: Alice, hosts: Authority, status: int) -> None:
    early = f"HTTP/1.1 {status} Got {SECRET}\r\n\r\n".encode()
    await alice.place.server(nets.API, 443, says(early + chunked(b"ok")), hosts.context(HOST))
    client = await alice.ask()
    assert (await client.head()).startswith(f"HTTP/1.1 {status} Got [secret removed]\r\n".encode())
    assert (await client.head()).startswith(b"HTTP/1.1 200 ")
    await reflected(alice)


async def test_in_the_line_that_switches_to_a_websocket(alice: Alice, hosts: Authority) -> None:
    switching = f"HTTP/1.1 101 {SECRET}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
    await alice.place.server(nets.API, 443, says(switching), hosts.context(HOST))
    await alice.put(f"{HOST}:443", f"{HOST}:443/ws")
    client = await alice.ask("GET /", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
    assert (await client.head()).startswith(b"HTTP/1.1 101 [secret removed]\r\n")
    await reflected(alice)


NAMES = {
    "a list of names in small letters": f"Access-Control-Allow-Headers: {SECRET.lower()}",
    "a name in capitals": f"X-Echo: {SECRET.upper()}",
    "a name of its own": f"X-{SECRET.replace('+/', '').title()}: 1",
}


@pytest.mark.parametrize("line", NAMES.values(), ids=NAMES)
async def test_in_another_case_as_names_are_written(alice: Alice, hosts: Authority, line: str) -> None:
    plain = SECRET.replace("+/", "")
    alice.plane.answer = {"set": [["X-Key", SECRET]], "swap": [], "needles": [SECRET, plain]}
    answer = f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 0\r\n\r\n".encode()
    await alice.place.server(nets.API, 443, says(answer), hosts.context(HOST))
    assert plain.lower() not in (await (await alice.ask()).head()).decode().lower()


async def test_in_a_page_it_is_cut_out(alice: Alice, hosts: Authority) -> None:
    alice.plane.answer = {"set": [["X-Key", 'pa"ss&w<ord']], "swap": [], "needles": ['pa"ss&w<ord']}
    page = chunked(b"<p>You said pa&quot;ss&amp;w&lt;ord</p>")
    await alice.place.server(nets.API, 443, says(page), hosts.context(HOST))
    client = await alice.ask()
    await client.head()
    assert await client.reader.readuntil(b"0\r\n\r\n") == b"20\r\n<p>You said [secret removed]</p>\r\n0\r\n\r\n"
    await reflected(alice)


async def test_what_a_placeholder_stands_for_too(alice: Alice, hosts: Authority) -> None:
    await alice.put(rules=[], placeholders=[BOUND])
    alice.plane.answer["set"] = []
    await alice.place.server(nets.API, 443, says(chunked(SECRET.encode())), hosts.context(HOST))
    client = await alice.ask("GET /", f"X-Key: {PLACEHOLDER}")
    await client.head()
    assert await client.reader.readuntil(b"0\r\n\r\n") == b"10\r\n[secret removed]\r\n0\r\n\r\n"
    await reflected(alice)


async def test_an_answer_without_it_is_not_touched(alice: Alice, hosts: Authority) -> None:
    body = b"sk-live-" * 1000 + SECRET[:-1].encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    await alice.place.server(nets.API, 443, says(answer), hosts.context(HOST))
    client = await alice.https()
    for _ in range(2):
        client.send(request())
        assert await client.answer() == (200, body)
    assert not [event for event in alice.place.node.events if event["code"] == "secret.reflected"]
