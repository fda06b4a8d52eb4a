"""What is no request of a proxy's, or one that could be read in two ways, gets an answer and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.place import ALICE, connect_head
from tests.egress.servers import web

if TYPE_CHECKING:
    from tests.egress.conftest import Place

PLAIN = b"Host: plain.allowed.test\r\n"
GET = b"GET http://plain.allowed.test/ HTTP/1.1\r\n"
POST = b"POST http://plain.allowed.test/ HTTP/1.1\r\n" + PLAIN


async def _refused(place: Place, request: bytes, status: int, reason: str) -> None:
    server = await place.server(nets.API, 80, web)
    client = await place.alice.ask(request)
    assert await client.refusal() == (status, reason)
    assert await client.rest() == b""
    assert (await place.node.event(code="egress.denied"))["reason"] == reason
    assert server.connections == 0
    assert place.names.asked == []


@pytest.mark.parametrize(
    ("authority", "status", "reason"),
    [
        ("evil.test:443", 403, "no_rule"),
        ("evil-api.allowed.test:443", 403, "no_rule"),
        ("xapi.allowed.test:443", 403, "no_rule"),
        ("api.allowed.test.evil.test:443", 403, "no_rule"),
        ("wild.allowed.test:443", 403, "no_rule"),
        ("evilwild.allowed.test:443", 403, "no_rule"),
        ("dns.google:443", 403, "no_rule"),
        ("api.allowed.test:22", 403, "port"),
        ("api.allowed.test:8443", 403, "port"),
        ("api.allowed.test:853", 403, "port"),
        ("45.79.1.66:443", 403, "literal_ip"),
        ("1.1.1.1:443", 403, "literal_ip"),
        ("10.20.0.5:5432", 403, "literal_ip"),
        ("127.0.0.1:8000", 403, "literal_ip"),
        ("[::1]:443", 403, "literal_ip"),
        ("[::ffff:127.0.0.1]:443", 403, "literal_ip"),
        ("[64:ff9b::7f00:1]:443", 403, "literal_ip"),
        ("[2002:7f00:1::]:443", 403, "literal_ip"),
        ("169.254.169.254:80", 403, "metadata"),
        ("[fd00:ec2::254]:80", 403, "metadata"),
        ("100.100.100.200:80", 403, "metadata"),
        ("[::ffff:169.254.169.254]:80", 403, "metadata"),
        ("metadata.google.internal:80", 403, "metadata"),
        ("proxy.internal:8080", 403, "loop"),
        ("broker.gatehouse.internal:443", 403, "port"),
        ("[fe80::1%25eth0]:443", 400, "bad_host"),
        ("api.allowed.test:0", 400, "bad_host"),
        ("api.allowed.test:99999", 400, "bad_host"),
        ("api.allowed.test:443abc", 400, "bad_host"),
        ("api.allowed.test:+443", 400, "bad_host"),
        ("api.allowed.test", 400, "bad_host"),
        ("api.allowed.test..:443", 400, "bad_host"),
        (".api.allowed.test:443", 400, "bad_host"),
        ("api.allowed.test\0.evil.test:443", 400, "bad_host"),
        ("api%2eallowed%2etest:443", 400, "bad_host"),
        ("api.allowed.test%00:443", 400, "bad_host"),
        ("api.allowed.test,evil.test:443", 400, "bad_host"),
        ("user@api.allowed.test:443", 400, "bad_host"),
        ("http://api.allowed.test:443", 400, "bad_host"),
        ("api。allowed。test:443", 400, "bad_host"),
        ("api.al\u00adlowed.test:443", 400, "bad_host"),
        ("①②⑦.⓪.⓪.①:443", 400, "bad_host"),
        ("xn--0.allowed.test:443", 400, "bad_host"),
        ("0x7f.1:443", 400, "bad_host"),
        ("2130706433:443", 400, "bad_host"),
        ("127.1:443", 400, "bad_host"),
        ("0177.0.0.1:443", 400, "bad_host"),
    ],
)
async def test_refuses_tunnels(place: Place, authority: str, status: int, reason: str) -> None:
    await _refused(place, connect_head(authority), status, reason)


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        pytest.param(GET.replace(b"http:", b"https:") + PLAIN + b"\r\n", 400, "not_http", id="https"),
        pytest.param(GET.replace(b"http:", b"ftp:") + PLAIN + b"\r\n", 400, "not_http", id="ftp"),
        pytest.param(b"GET / HTTP/1.1\r\n" + PLAIN + b"\r\n", 400, "bad_host", id="origin form"),
        pytest.param(
            b"GET http://plain.allowed.test@evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", 400, "bad_host", id="user"
        ),
        pytest.param(
            b"GET http://evil.test#plain.allowed.test/ HTTP/1.1\r\n" + PLAIN + b"\r\n", 400, "bad_host", id="fragment"
        ),
        pytest.param(
            b"GET http://plain.allowed.test\\evil.test/ HTTP/1.1\r\n" + PLAIN + b"\r\n", 400, "bad_host", id="backslash"
        ),
        pytest.param(GET + b"Host: evil.test\r\n\r\n", 403, "host_mismatch", id="another host"),
        pytest.param(GET + b"Host: plain.allowed.test:8080\r\n\r\n", 403, "host_mismatch", id="another port"),
        pytest.param(
            b"GET http://evil.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n", 403, "host_mismatch", id="swapped"
        ),
        pytest.param(GET + b"\r\n", 400, "smuggling", id="no host"),
        pytest.param(GET + PLAIN + PLAIN + b"\r\n", 400, "smuggling", id="two hosts"),
        pytest.param(POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "smuggling", id="CL TE"),
        pytest.param(POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400, "smuggling", id="CL CL"),
        pytest.param(POST + b"Content-Length: 4, 5\r\n\r\nabcd", 400, "smuggling", id="CL list"),
        pytest.param(POST + b"Content-Length: +4\r\n\r\nabcd", 400, "smuggling", id="CL sign"),
        pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400, "smuggling", id="TE unknown"),
        pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400, "smuggling", id="TE list"),
        pytest.param(POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400, "smuggling", id="TE control"),
        pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n", 400, "smuggling", id="space before colon"),
        pytest.param(POST + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n", 400, "smuggling", id="folded"),
        pytest.param(POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n", 400, "smuggling", id="bare LF"),
        pytest.param(POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n", 400, "smuggling", id="bare CR"),
        pytest.param(POST + b"X: a\0b\r\n\r\n", 400, "smuggling", id="NUL"),
        pytest.param(POST + b"no colon\r\n\r\n", 400, "smuggling", id="no colon"),
        pytest.param(POST + b"Trailer: X\r\n\r\n", 400, "smuggling", id="trailer"),
        pytest.param(
            POST + b"Connection: content-length\r\nContent-Length: 4\r\n\r\nabcd", 400, "smuggling", id="hop-by-hop CL"
        ),
        pytest.param(
            POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n",
            400,
            "smuggling",
            id="1.0 TE",
        ),
        pytest.param(
            connect_head("api.allowed.test:443", "Content-Length: 4") + b"abcd", 400, "smuggling", id="CONNECT body"
        ),
        pytest.param(b"\r\n" + GET + PLAIN + b"\r\n", 400, "not_http", id="empty line first"),
        pytest.param(b"GET  http://plain.allowed.test/ HTTP/1.1\r\n" + PLAIN + b"\r\n", 400, "bad_host", id="spaces"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "not_http", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x00\x05hello\r\n\r\n", 400, "not_http", id="TLS"),
        pytest.param(b"\x05\x01\x00\r\n\r\n", 400, "not_http", id="SOCKS"),
        pytest.param(GET + PLAIN + b"X: " + b"a" * 33_000 + b"\r\n\r\n", 431, "limit", id="long head"),
        pytest.param(
            connect_head("api.allowed.test:443").replace(b"Host: api", b"Host: pypi"),
            403,
            "host_mismatch",
            id="CONNECT",
        ),
        pytest.param(
            b"GET http://broker.gatehouse.internal:81/ HTTP/1.1\r\nHost: broker.gatehouse.internal:81\r\n\r\n",
            403,
            "port",
            id="broker port",
        ),
        pytest.param(
            b"GET http://proxy.internal:8080/ HTTP/1.1\r\nHost: proxy.internal:8080\r\n\r\n", 403, "loop", id="loop"
        ),
    ],
)
async def test_refuses_requests(place: Place, request_bytes: bytes, status: int, reason: str) -> None:
    await _refused(place, request_bytes, status, reason)


async def test_takes_no_credentials_of_another_sandbox(place: Place) -> None:
    """`aWJvYjp4` is ibob:x."""
    await _refused(place, connect_head("api.allowed.test:443", "Proxy-Authorization: Basic aWJvYjp4"), 403, "identity")


@pytest.mark.parametrize("said", ["Basic", "Basic %%%", "Bearer ialice", "Basic aWJvYg=="])
async def test_takes_no_other_credentials(place: Place, said: str) -> None:
    await _refused(place, connect_head("api.allowed.test:443", f"Proxy-Authorization: {said}"), 403, "identity")


async def test_lets_credentials_agree_with_the_socket(place: Place) -> None:
    """`aWFsaWNlOng=` is ialice:x."""
    assert ALICE == "ialice"
    await place.alice.tunnel("api.allowed.test:443", "Proxy-Authorization: Basic aWFsaWNlOng=")


async def test_says_which_entry_to_ask_for(place: Place) -> None:
    client = await place.alice.ask(connect_head("index.example:443"))
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 403 Forbidden (network policy: no_rule, add index.example:443)\r\n")
    assert b"Gatehouse-Reason: no_rule\r\n" in head
    assert b'add \\"index.example:443\\" to the sandbox\'s network policy' in await client.rest()


async def test_never_tells_an_internal_address(place: Place) -> None:
    place.names.zone["api.allowed.test"] = [nets.INTERNAL]
    client = await place.alice.ask(connect_head("api.allowed.test:443"))
    assert nets.INTERNAL.encode() not in await client.rest()
