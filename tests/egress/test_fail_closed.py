"""Where a request can't get what its host's rule says, nothing of it goes out, and the answer says why."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.egress import nets
from tests.egress.inside import HOST, RULE, SECRET, request
from tests.egress.place import ALICE, document
from tests.egress.servers import certificate, echo, hello_first, ok, says
from tests.internet.certificates import Authority

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from tests.egress.inside import Alice
    from tests.egress.servers import Handler


@pytest.fixture(scope="module")
def quick() -> dict[str, float]:
    """Nobody waits long here."""
    return {"sniff_seconds": 1, "head_seconds": 2, "connect_seconds": 2}


async def told(alice: Alice, reason: str) -> str:
    """Return the sentence that is recorded with a refusal."""
    event = await alice.place.node.event(code="egress.denied", reason=reason)
    assert event["details"]["host"] == HOST
    return str(event["details"].get("detail") or "")


# --- the control plane


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (409, 403, "secret_missing"),
        (403, 503, "secrets_unavailable"),
        (404, 503, "secrets_unavailable"),
        (500, 503, "secrets_unavailable"),
        (503, 503, "secrets_unavailable"),
    ],
)
async def test_the_control_plane_says_no(alice: Alice, hosts: Authority, status: int, code: int, reason: str) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    alice.plane.status = status
    client = await alice.ask("GET /", "Authorization: Bearer own")
    said, body = await client.answer()
    assert (said, json.loads(body)["reason"]) == (code, reason)
    assert server.connections == 0
    await told(alice, reason)


@pytest.mark.parametrize(
    "answer",
    [
        "text",
        {},
        {"set": [], "swap": []},
        {"set": [["Authorization"]], "swap": [], "needles": []},
        {"set": [["Authorization", 5]], "swap": [], "needles": []},
        {"set": [["Authorization", "a\r\nX-Evil: 1"]], "swap": [], "needles": []},
        {"set": [["Authorization", "a\u0000"]], "swap": [], "needles": []},
        {"set": [["Authorization", "a\u0001b"]], "swap": [], "needles": []},
        {"set": [["Authorization", " a"]], "swap": [], "needles": []},
        {"set": [["Bad Name", "a"]], "swap": [], "needles": []},
        {"set": [], "swap": [], "needles": [5]},
    ],
)
async def test_the_control_plane_says_nonsense(alice: Alice, hosts: Authority, answer: Any) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    alice.plane.answer = answer
    assert await (await alice.ask()).refusal() == (503, "secrets_unavailable")
    assert server.connections == 0


async def test_the_control_plane_says_nothing(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    alice.plane.silent = True
    assert await (await alice.ask()).refusal() == (503, "secrets_unavailable")
    assert server.connections == 0


async def test_the_control_plane_lets_go_of_a_connection_that_was_idle(alice: Alice, hosts: Authority) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.ask()
    assert await client.answer() == (200, b"ok")
    alice.plane.hangs_up = True
    client.send(request())
    assert await client.answer() == (200, b"ok")
    assert (alice.plane.connections, len(alice.plane.asked)) == (2, 3)


async def test_the_control_plane_is_away_and_comes_back(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.ask()
    assert await client.answer() == (200, b"ok")
    await alice.plane.stop()
    client.send(request())
    assert await client.refusal() == (503, "secrets_unavailable")
    await alice.plane.start()
    assert await (await alice.ask()).answer() == (200, b"ok")
    assert server.received.count(b"GET / ") == 2


# --- the client


async def test_a_client_that_speaks_http2_only(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.place.alice.tunnel(f"{HOST}:443")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.writer.start_tls(alice.context("h2"), server_hostname=HOST)
    assert await told(alice, "cannot_rewrite") == "The client speaks HTTP/2 only."
    assert server.connections == 0


async def test_a_client_that_would_speak_either_speaks_http1(alice: Alice, hosts: Authority) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.https(context=alice.context("h2", "http/1.1"))
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_a_client_that_begins_http2_all_the_same(alice: Alice, hosts: Authority) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.https(context=alice.context())
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert await client.refusal() == (403, "cannot_rewrite")
    assert "neither HTTP nor HTTPS" in await told(alice, "cannot_rewrite")


async def test_a_client_that_trusts_only_what_it_knows(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.place.alice.tunnel(f"{HOST}:443")
    with pytest.raises(ssl.SSLCertVerificationError):
        await client.writer.start_tls(ssl.create_default_context(cadata=hosts.pem), server_hostname=HOST)
    sentence = await told(alice, "cannot_rewrite")
    assert sentence.startswith("The client does not accept the sandbox's certificate authority")
    assert (server.connections, alice.plane.asked) == (0, [])


async def test_a_client_that_leaves_without_a_word(alice: Alice, hosts: Authority) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.place.alice.tunnel(f"{HOST}:443")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    greeting = alice.context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        greeting.do_handshake()
    client.send(outgoing.read())
    await client.reader.read(1)
    client.close()
    assert (await told(alice, "cannot_rewrite")).startswith("The client does not accept")


@pytest.mark.parametrize("first", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f", b""])
async def test_what_is_neither_http_nor_https(alice: Alice, first: bytes) -> None:
    server = await alice.place.server(nets.API, 22, hello_first)
    await alice.put(f"{HOST}:22/tcp")
    client = await alice.place.alice.tunnel(f"{HOST}:22")
    client.send(first)
    assert await client.rest() == b""
    await told(alice, "cannot_rewrite")
    assert server.connections == 0


async def test_any_port_with_tls_is_ended(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 5432, ok, hosts.context(HOST))
    await alice.put(f"{HOST}:5432")
    client = await alice.https(authority=f"{HOST}:5432")
    client.send(request(host=f"{HOST}:5432"))
    assert await client.answer() == (200, b"ok")
    assert server.received.startswith(f"GET / HTTP/1.1\r\nHost: {HOST}:5432\r\nAuthorization: Bearer".encode())


@pytest.mark.parametrize("name", ["pypi.allowed.test", "evil.test"])
async def test_another_name_in_the_greeting_even_where_names_are_only_noted(alice: Alice, name: str) -> None:
    await alice.put(tls={"sni": "log", "ech": "deny"})
    client = await alice.place.alice.tunnel(f"{HOST}:443")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.writer.start_tls(alice.context(), server_hostname=name)
    await told(alice, "sni_mismatch")


@pytest.mark.parametrize("authority", ["pypi.allowed.test:443", f"{nets.API}:443"])
async def test_a_bound_name_in_a_greeting_to_somewhere_else(alice: Alice, authority: str) -> None:
    server = await alice.place.server(nets.API, 443, echo)
    await alice.put("pypi.allowed.test:443", f"{nets.API}:443/tls", tls={"sni": "log", "ech": "deny"})
    client = await alice.place.alice.tunnel(authority)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.writer.start_tls(alice.context(), server_hostname=HOST)
    event = await alice.place.node.event(code="egress.denied", reason="cannot_rewrite")
    assert "asked for by name" in event["details"]["detail"]
    assert server.connections == 0


# --- what is said inside of TLS


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (request(host="evil.test"), 403, "host_mismatch"),
        (request(host="pypi.allowed.test"), 403, "host_mismatch"),
        (request(host=f"{HOST}:80"), 403, "host_mismatch"),
        (request(f"GET http://{HOST}/"), 403, "host_mismatch"),
        (request(f"GET https://{HOST}/"), 403, "cannot_rewrite"),
        (request("CONNECT evil.test:443"), 403, "loop"),
        (request("GET /", "Host: evil.test"), 400, "smuggling"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "smuggling"),
        (request("POST /", "Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "smuggling"),
        (request("POST /", "Content-Length: 3", "Content-Length: 4") + b"abcd", 400, "smuggling"),
        (request("POST /", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 400, "smuggling"),
        (request("POST /", "Connection: Content-Length", "Content-Length: 3") + b"abc", 400, "smuggling"),
        (request("GET /", "X: a\n b: c"), 400, "smuggling"),
        (request("GET /", "X : a"), 400, "smuggling"),
        (request("GET /", " folded: x"), 400, "smuggling"),
        (request("GET /", "X: " + "a" * 40_000), 431, "limit"),
        (request("GET /" + "a" * 4_000), 414, "cannot_rewrite"),
    ],
)
async def test_a_request_that_is_not_for_this_host_or_not_clear(
    alice: Alice, hosts: Authority, said: bytes, status: int, reason: str
) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.https()
    client.send(said)
    assert await client.refusal() == (status, reason)
    assert (server.connections, alice.plane.asked) == (0, [])


async def test_the_second_request_of_a_connection_to_another_host(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.https()
    client.send(request("GET /1") + request("GET /2", host="evil.test"))
    assert await client.answer() == (200, b"ok")
    assert await client.refusal() == (403, "host_mismatch")
    assert await client.rest() == b""
    assert (server.received.count(b"GET"), len(alice.plane.asked)) == (1, 1)


async def test_a_request_behind_a_body(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.ask("POST /1", body=b"GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    client.send(request("GET /2"))
    assert [await client.answer() for _ in range(2)] == [(200, b"ok")] * 2
    assert [said["path"] for _, said in alice.plane.asked] == ["/1", "/2"]
    assert server.received.count(SECRET.encode()) == 2


WEBSOCKET = ("GET /live", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Authorization: own")


async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switch to another protocol and send everything back."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
    await echo(reader, writer)


async def test_a_websocket_where_the_policy_does_not_say_so(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, switch, hosts.context(HOST))
    assert await (await alice.ask(*WEBSOCKET)).refusal() == (403, "upgrade")
    assert server.connections == 0


OPEN = {"name": "sandbox", "mode": "allow", "first": "allow", "egress": []}


@pytest.mark.parametrize("allowed", ["by name", "with all else"])
async def test_a_websocket_where_it_does_gets_the_header_too(alice: Alice, hosts: Authority, allowed: str) -> None:
    server = await alice.place.server(nets.API, 443, switch, hosts.context(HOST))
    if allowed == "by name":
        await alice.put(f"{HOST}:443", f"{HOST}:443/ws")
    else:
        await alice.put(layers=[OPEN])
    client = await alice.ask(*WEBSOCKET)
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    assert await client.exactly(5) == b"hello"
    client.send(b"x" * 200_000)
    assert await client.exactly(200_000) == b"x" * 200_000
    assert f"Authorization: Bearer {SECRET}\r\n".encode() in server.received
    assert b"Authorization: own" not in server.received
    client.close()
    await server.ended.wait()


# --- the host


def end_tls(context: ssl.SSLContext) -> Handler:
    """Return a handler that ends TLS itself, and says what is wrong before it leaves."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            incoming.write(await reader.read())
            try:
                server.do_handshake()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
            except ssl.SSLError:
                writer.write(outgoing.read())
                writer.write_eof()
                await reader.read()
                return

    return handle


@pytest.mark.parametrize("kind", ["another name", "unknown authority"])
async def test_a_host_that_does_not_prove_its_name(alice: Alice, hosts: Authority, tmp_path: Path, kind: str) -> None:
    context = hosts.context("evil.test") if kind == "another name" else certificate(tmp_path, HOST)[0]
    server = await alice.place.server(nets.API, 443, ok, context)
    assert await (await alice.ask()).refusal() == (502, "tls_failed")
    assert server.received == b""
    assert (await told(alice, "tls_failed")).startswith("Its certificate is not valid: ")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_a_host_that_speaks_an_old_tls(alice: Alice, hosts: Authority) -> None:
    context = hosts.anew(HOST)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    server = await alice.place.server(nets.API, 443, ok, context)
    assert await (await alice.ask()).refusal() == (502, "tls_failed")
    assert server.received == b""


async def test_a_host_that_speaks_no_tls(alice: Alice) -> None:
    await alice.place.server(nets.API, 443, hello_first)
    assert await (await alice.ask()).refusal() == (502, "tls_failed")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_host_that_wants_a_certificate(
    alice: Alice, hosts: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = hosts.anew(HOST)
    context.load_verify_locations(Authority(tmp_path).file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    server = await alice.place.server(nets.API, 443, end_tls(context))
    if version is ssl.TLSVersion.TLSv1_3:
        assert await (await alice.ask()).refusal() == (403, "cannot_rewrite")
        assert "certificate of the client" in await told(alice, "cannot_rewrite")
    else:
        # The older TLS has no word for it.
        assert await (await alice.ask()).refusal() == (502, "tls_failed")
    assert b"GET" not in server.received


async def test_an_answer_that_is_cut_off(alice: Alice, hosts: Authority) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await writer.drain()
        writer.transport.get_extra_info("socket").shutdown(2)

    await alice.place.server(nets.API, 443, cut, hosts.context(HOST))
    client = await alice.ask()
    assert (await client.head()).startswith(b"HTTP/1.1 200 ")
    # No end of the chunks: what came is not the whole.
    assert not (await client.rest()).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
async def test_an_answer_that_can_not_be_searched(alice: Alice, hosts: Authority, coding: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 2\r\n\r\nok".encode()
    await alice.place.server(nets.API, 443, says(answer), hosts.context(HOST))
    assert await (await alice.ask()).refusal() == (502, "answer_coded")


async def test_without_an_authority_nothing_is_ended(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    await alice.place.node.put(document(version=3, rules=[RULE]), ident=ALICE)
    client = await alice.place.alice.tunnel(f"{HOST}:443")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.writer.start_tls(alice.context(), server_hostname=HOST)
    assert await told(alice, "cannot_rewrite") == "The sandbox has no certificate authority."
    assert server.connections == 0


@pytest.mark.parametrize("ca", [{}, {"certificate": "x", "key": "y"}, "x", {"certificate": "", "key": ""}])
async def test_an_authority_that_is_none_is_refused(alice: Alice, ca: Any) -> None:
    done = await alice.place.node.put(document(version=4, rules=[RULE]), ident=ALICE, ca=ca)
    assert done["op"] == "failed"
