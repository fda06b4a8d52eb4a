"""Requests to a host with a header rule: TLS ends on the way, and what the rule says is set."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.egress import nets
from tests.egress.inside import HOST, RULE, SECRET, request
from tests.egress.servers import ok, web

if TYPE_CHECKING:
    from tests.egress.inside import Alice
    from tests.internet.certificates import Authority

SET = f"Authorization: Bearer {SECRET}\r\n".encode()


async def test_sets_the_header_of_the_rule(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.ask("GET /v1/x?a=b", "Accept: */*", "X-Mixed: Kept", "Accept-Encoding: gzip")
    assert await client.answer() == (200, b"ok")
    assert server.received == (
        b"GET /v1/x?a=b HTTP/1.1\r\nHost: api.allowed.test\r\nAccept: */*\r\nX-Mixed: Kept\r\n"
        + SET
        + b"Accept-Encoding: identity\r\n\r\n"
    )
    client.close()
    details = (await alice.place.node.event(code="egress.closed"))["details"]
    assert {name: details[name] for name in ("host", "port", "protocol", "sni", "method", "secrets_sent")} == {
        "host": HOST,
        "port": 443,
        "protocol": "tls",
        "sni": HOST,
        "method": "GET",
        "secrets_sent": 1,
    }


async def test_the_control_plane_is_asked_where_the_request_goes(alice: Alice, hosts: Authority) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    assert (await (await alice.ask("POST /v1/x?a=b", body=b"{}")).answer())[0] == 200
    said = {
        "generation": alice.place.node.generation,
        "host": HOST,
        "method": "POST",
        "path": "/v1/x",
        "rule_host": HOST,
        "scheme": "https",
    }
    assert alice.plane.asked == [("/internal/v1/sandboxes/ialice/credentials", said)]


async def test_replaces_what_the_client_says_in_its_place(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    own = ("authorization: Bearer own", "AUTHORIZATION: Basic b3du", "X-Authorization: kept")
    assert (await (await alice.ask("GET /", *own)).answer())[0] == 200
    assert server.received.lower().count(b"\r\nauthorization:") == 1
    assert SET in server.received
    assert b"X-Authorization: kept" in server.received


async def test_a_client_can_not_have_the_header_dropped(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    assert (await (await alice.ask("GET /", "Connection: Authorization, close")).answer())[0] == 200
    assert SET in server.received


async def test_asks_for_each_request_of_a_connection(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.https()
    client.send(request("GET /1") + request("GET /2"))
    assert [await client.answer() for _ in range(2)] == [(200, b"ok")] * 2
    alice.plane.answer = {"set": [["Authorization", "Bearer rotated"]], "swap": [], "needles": ["rotated"]}
    client.send(request("GET /3"))
    assert await client.answer() == (200, b"ok")
    assert server.received.count(SET) == 2
    assert server.received.endswith(b"Authorization: Bearer rotated\r\nAccept-Encoding: identity\r\n\r\n")
    assert (server.connections, alice.plane.connections) == (1, 1)


@pytest.mark.parametrize("chunked", [False, True])
async def test_passes_a_body_on(alice: Alice, hosts: Authority, chunked: bool) -> None:  # noqa: FBT001
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    if chunked:
        client = await alice.ask("POST /", "Transfer-Encoding: chunked")
        client.send(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
    else:
        client = await alice.ask("POST /", body=b"x" * 300_000)
    assert await client.answer() == (200, b"ok")
    assert server.received.endswith(b"llo\r\n0\r\n\r\n" if chunked else b"x" * 300_000)


async def test_a_plain_text_needs_nobody_to_be_asked(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, web, hosts.context(HOST))
    await alice.put(rules=[{**RULE, "set": {"X-Team": "acme"}}])
    status, body = await (await alice.ask("GET /", "x-team: evil", "Accept-Encoding: gzip")).answer()
    # Nothing secret was sent, so the answer may be coded and hold anything.
    assert (status, body.count(b"acme"), body.count(b"evil"), b"gzip" in body) == (200, 1, 0, True)
    assert server.connections == 1
    assert alice.plane.asked == []


async def test_in_the_clear_too_which_is_recorded(alice: Alice) -> None:
    server = await alice.place.server(nets.API, 80, ok)
    await alice.put("plain.allowed.test:80", rules=[{**RULE, "host": "plain.allowed.test"}])
    client = await alice.place.alice.ask(
        b"GET http://plain.allowed.test/x HTTP/1.1\r\nHost: plain.allowed.test\r\nauthorization: own\r\n\r\n"
    )
    assert await client.answer() == (200, b"ok")
    assert server.received.startswith(b"GET /x HTTP/1.1\r\nHost: plain.allowed.test\r\n" + SET)
    assert [said["scheme"] for _, said in alice.plane.asked] == ["http"]
    client.close()
    details = (await alice.place.node.event(code="egress.closed"))["details"]
    assert (details["protocol"], details["secrets_sent"]) == ("http", 1)


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("POST /v1/chat", True),
        ("POST /v1/chat?x=/v2/", True),
        ("GET /v1/chat", False),
        ("POST /v2/chat", False),
        ("POST /v1/%2e%2e/admin", False),
        ("POST /v1/a%2fb", False),
        ("POST /v1//chat", False),
        ("POST /v1/%252e%252e%252fadmin", False),
        ("POST /v1/%c0%ae%c0%ae%c0%afadmin", False),
        ("POST /v1/%e0%80%afadmin", False),
        ("POST /v1/chat%3fx", False),
        ("POST /v1/chat%23x", False),
        ("POST /v1/chat#x", False),
        ("POST /v1/chat%0d%0ax", False),
        ("POST /v1/%e0%a4%85", True),
    ],
)
async def test_only_where_method_and_path_fit(alice: Alice, hosts: Authority, line: str, fits: bool) -> None:  # noqa: FBT001
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    await alice.put(rules=[{**RULE, "methods": ["POST"], "paths": ["/v1/*"]}])
    assert await (await alice.ask(line)).answer() == (200, b"ok")
    assert (SET in server.received, len(alice.plane.asked)) == (fits, int(fits))


@pytest.mark.parametrize(
    "header",
    [
        "X-HTTP-Method-Override: DELETE",
        "x-method-override: PUT",
        "X_HTTP_Method: PATCH",
        "X-Original-URL: /admin",
        "X-Rewrite-Url: /admin",
    ],
)
async def test_not_where_a_header_says_another_method_or_path(alice: Alice, hosts: Authority, header: str) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    await alice.put(rules=[{**RULE, "methods": ["POST"], "paths": ["/v1/*"]}])
    assert await (await alice.ask("POST /v1/chat", header)).answer() == (200, b"ok")
    assert (SET in server.received, alice.plane.asked) == (False, [])


async def test_a_rule_for_every_request_does_not_care_what_else_is_said(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    assert await (await alice.ask("POST /v1/chat", "X-HTTP-Method-Override: DELETE")).answer() == (200, b"ok")
    assert SET in server.received


async def test_nothing_is_asked_for_in_parts(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    slices = ("Range: bytes=10-14", "RANGE: bytes=0-1,5-6", 'If-Range: "x"', "X-Range: kept")
    assert await (await alice.ask("GET /echo", *slices)).answer() == (200, b"ok")
    assert SET in server.received
    assert [line for line in server.received.lower().split(b"\r\n") if b"range" in line] == [b"x-range: kept"]


async def test_parts_of_what_no_secret_goes_to_may_be_asked_for(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    await alice.put(rules=[{**RULE, "set": {"X-Plain": "1"}}])
    assert await (await alice.ask("GET /", "Range: bytes=10-14")).answer() == (200, b"ok")
    assert b"Range: bytes=10-14\r\n" in server.received


async def test_the_narrowest_rule_counts_alone(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context("a.wild.allowed.test"))
    wide = {**RULE, "host": "*.wild.allowed.test", "set": {"X-Wide": "1"}}
    await alice.put(rules=[wide, {**RULE, "host": "a.wild.allowed.test", "set": {"X-Narrow": "1"}}])
    assert await (await alice.ask(host="a.wild.allowed.test")).answer() == (200, b"ok")
    assert (b"X-Narrow: 1" in server.received, b"X-Wide" in server.received) == (True, False)


async def test_an_answer_comes_through_as_it_comes(alice: Alice, hosts: Authority) -> None:
    go_on = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await go_on.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    await alice.place.server(nets.API, 443, stream, hosts.context(HOST))
    client = await alice.ask("GET /stream")
    await client.head()
    assert await client.exactly(14) == b"9\r\ndata: 1\n\n\r\n"
    go_on.set()
    assert await client.exactly(19) == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"


async def test_by_the_operators_proxy_which_sees_nothing_of_it(alice: Alice, hosts: Authority) -> None:
    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(f"CONNECT {HOST}:443 ".encode())
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.start_tls(hosts.context(HOST))
        await ok(reader, writer)

    server = await alice.place.server(nets.CORPORATE, 3128, tunnel)
    await alice.put(via=f"{nets.CORPORATE}:3128")
    client = await alice.ask()
    assert await client.answer() == (200, b"ok")
    assert SET in server.received
    assert alice.place.names.asked == []


async def test_a_rule_is_no_permission(alice: Alice, hosts: Authority) -> None:
    evil = await alice.place.server(nets.EVIL, 443, ok, hosts.context("evil.test"))
    await alice.put(rules=[{**RULE, "host": "evil.test"}])
    client = await alice.place.alice.ask(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n")
    assert await client.refusal() == (403, "no_rule")
    assert (evil.connections, alice.plane.asked) == (0, [])


async def test_hosts_without_a_rule_are_left_alone(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, web, hosts.context("pypi.allowed.test"))
    client = await alice.https("pypi.allowed.test", context=ssl.create_default_context(cadata=hosts.pem))
    client.send(request(host="pypi.allowed.test"))
    assert (await client.answer())[0] == 200
    assert b"Authorization" not in server.received
    assert alice.plane.asked == []


@pytest.mark.parametrize(
    ("changes", "ends"),
    [({}, False), ({"rules": []}, True), ({"rules": [RULE | {"host": "pypi.allowed.test"}]}, True)],
    ids=["same", "no rules", "another rule"],
)
async def test_what_loses_its_rule_is_closed(
    alice: Alice,
    hosts: Authority,
    changes: dict[str, Any],
    ends: bool,  # noqa: FBT001
) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context(HOST))
    client = await alice.ask()
    assert await client.answer() == (200, b"ok")
    await alice.put(version=2, **changes)
    if ends:
        assert await client.rest() == b""
        assert (await alice.place.node.event(code="egress.closed"))["reason"] == "policy_closed"
    else:
        client.send(request())
        assert await client.answer() == (200, b"ok")


async def test_a_tunnel_to_a_host_that_gets_a_rule_is_closed(alice: Alice, hosts: Authority) -> None:
    await alice.place.server(nets.API, 443, ok, hosts.context("pypi.allowed.test"))
    client = await alice.https("pypi.allowed.test", context=ssl.create_default_context(cadata=hosts.pem))
    await alice.put(version=2, rules=[RULE, {**RULE, "host": "pypi.allowed.test"}])
    assert await client.rest() == b""
    assert (await alice.place.node.event(code="egress.closed"))["reason"] == "policy_closed"


async def test_a_rule_that_comes_later_counts_with_the_same_key(alice: Alice, hosts: Authority) -> None:
    server = await alice.place.server(nets.API, 443, ok, hosts.context("pypi.allowed.test"))
    before = alice.context("http/1.1")
    await alice.put(version=2, rules=[RULE, {**RULE, "host": "pypi.allowed.test"}])
    assert await (await alice.ask(host="pypi.allowed.test")).answer() == (200, b"ok")
    assert SET in server.received
    # A program that has read the bundle before still believes what it could believe then.
    assert (await alice.https(context=before)).writer.get_extra_info("ssl_object").version() == "TLSv1.3"
