"""Every plain request is judged by itself, and what could be read in two ways is not passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.internet.world import API, EVIL, PLAIN
from tests.node.rig import eventually
from tests.security.conftest import any_runtime, gvisor_only, transparent_only

if TYPE_CHECKING:
    from tests.security.outbound import Outbound

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAIN_SITE = ("plain.allowed.test", 80)


@any_runtime
async def test_a_listed_host_is_reached_through_the_proxy(mallory: Outbound) -> None:
    request = (
        b"GET http://plain.allowed.test/hello?x=1 HTTP/1.1\r\nHost: plain.allowed.test\r\nConnection: close\r\n\r\n"
    )
    got = await mallory.run(f"answer(proxied({request!r}))")
    assert got.endswith("served plain.allowed.test/hello?x=1\n")
    details = (await mallory.passed())["details"]
    assert (details["host"], details["port"], details["protocol"], details["method"]) == (*PLAIN_SITE, "http", "GET")
    assert [one.target for one in mallory.internet.sites.requests()] == ["/hello?x=1"]


@transparent_only
async def test_a_listed_host_is_reached_by_a_program_that_knows_no_proxy(mallory: Outbound) -> None:
    request = b"POST /form HTTP/1.1\r\nHost: plain.allowed.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    got = await mallory.run(f"answer(direct('plain.allowed.test', 80, {request!r}))")
    assert got.endswith("took 5\n")
    assert (await mallory.passed())["details"]["via"] == "transparent"


@transparent_only
async def test_another_host_in_the_request(mallory: Outbound) -> None:
    request = b"GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n"
    got = await mallory.run(f"answer(status_of(direct('plain.allowed.test', 80, {request!r})))")
    assert got == [403, "host_mismatch"]
    await mallory.refusals(("host_mismatch", *PLAIN_SITE))
    mallory.reached_nothing()


@any_runtime
async def test_another_host_in_a_request_to_the_proxy(mallory: Outbound) -> None:
    request = b"GET http://plain.allowed.test/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n"
    assert await mallory.run(f"answer(status_of(proxied({request!r})))") == [403, "host_mismatch"]
    await mallory.refusals(("host_mismatch", *PLAIN_SITE))
    mallory.reached_nothing()


@transparent_only
async def test_another_host_in_the_second_request_of_a_connection(mallory: Outbound) -> None:
    first = b"GET /1 HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n"
    second = b"GET /2 HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    got = await mallory.run(f"answer(direct('plain.allowed.test', 80, {first + second!r}))")
    assert "served plain.allowed.test/1\n" in got
    assert "Gatehouse-Reason: host_mismatch\r\n" in got
    assert "/2" not in got.partition("served plain.allowed.test/1\n")[2].partition("\r\n\r\n")[0]
    await mallory.refusals(("host_mismatch", "evil.test", 80))
    assert [(one.target, one.headers["host"]) for one in mallory.internet.sites.requests()] == [
        ("/1", "plain.allowed.test")
    ]


AMBIGUOUS = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a coding that nobody knows": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"X-One: 1\r\n two\r\n\r\n",
    "a bare line feed": b"X-One: 1\nX-Two: 2\r\n\r\n",
    "a bare carriage return": b"X-One: 1\rX-Two: 2\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a trailer": b"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: 1\r\n\r\n",
    "a sign in the length": b"Content-Length: +5\r\n\r\nhello",
    "two hosts": b"Host: plain.allowed.test\r\n\r\n",
    "NUL in a value": b"X-One: a\x00b\r\n\r\n",
    "the length as a connection option": b"Content-Length: 5\r\nConnection: content-length\r\n\r\nhello",
}


@transparent_only
@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_a_request_that_can_be_read_in_two_ways(mallory: Outbound, rest: bytes) -> None:
    request = b"POST http://plain.allowed.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\n" + rest
    assert await mallory.run(f"answer(status_of(proxied({request!r})))") == [400, "smuggling"]
    await eventually(lambda: mallory.recorded("egress.denied"))
    (event,) = mallory.recorded("egress.denied")
    assert event["reason"] == "smuggling"
    mallory.reached_nothing()


@gvisor_only
async def test_none_of_them_is_passed_on_under_gvisor(mallory: Outbound) -> None:
    start = b"POST http://plain.allowed.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\n"
    requests = [start + rest for rest in AMBIGUOUS.values()]
    got = await mallory.run(f"answer([status_of(proxied(request)) for request in {requests!r}])")
    assert got == [[400, "smuggling"]] * len(requests)
    mallory.reached_nothing()


@transparent_only
@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_the_same_from_a_program_that_knows_no_proxy(mallory: Outbound, rest: bytes) -> None:
    request = b"POST / HTTP/1.1\r\nHost: plain.allowed.test\r\n" + rest
    assert await mallory.run(f"answer(status_of(direct('plain.allowed.test', 80, {request!r})))") == [400, "smuggling"]
    await mallory.refusals(("smuggling", *PLAIN_SITE))
    assert mallory.internet.sites.requests() == []


@any_runtime
@pytest.mark.parametrize(
    "target",
    [
        "http://plain.allowed.test@evil.test/",
        "http://evil.test@plain.allowed.test/",
        "http://evil.test#plain.allowed.test/",
        "http://plain.allowed.test#@evil.test/",
        "http://plain.allowed.test\\@evil.test/",
        "https://api.allowed.test/",
        "ftp://plain.allowed.test/",
        "http:///",
        "/",
    ],
)
async def test_a_url_with_more_than_one_meaning(mallory: Outbound, target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: plain.allowed.test\r\nConnection: close\r\n\r\n".encode()
    got = await mallory.run(f"answer(status_of(proxied({request!r})))")
    assert got[0] == 400
    assert got[1] in ("bad_host", "not_http")
    await eventually(lambda: mallory.recorded("egress.denied"))
    (event,) = mallory.recorded("egress.denied")
    assert event["reason"] == got[1]
    mallory.reached_nothing()


@transparent_only
async def test_a_websocket_where_the_rule_is_for_http(mallory: Outbound) -> None:
    request = (
        b"GET /ws HTTP/1.1\r\nHost: plain.allowed.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert await mallory.run(f"answer(status_of(direct('plain.allowed.test', 80, {request!r})))") == [403, "upgrade"]
    await mallory.refusals(("upgrade", *PLAIN_SITE))
    assert mallory.internet.sites.requests() == []
    await mallory.change("plain.allowed.test:80/ws", version=2)
    frame = b"\x81\x85\x00\x00\x00\x00hello"
    program = (
        "with socket.create_connection(('plain.allowed.test', 80), LIMIT) as sock:\n"
        f"    sock.sendall({request!r}); head = head_of(sock); sock.sendall({frame!r})\n"
        "    answer([head.split(' ')[1], sock.recv(100).decode('latin-1')])"
    )
    assert await mallory.run(program) == ["101", "\x81\x05hello"]


@transparent_only
@pytest.mark.parametrize("protocol", ["h2c", "tcp", "TLS/1.3"])
async def test_another_protocol_than_http(mallory: Outbound, protocol: str) -> None:
    fields = f"Host: plain.allowed.test\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n"
    request = f"GET / HTTP/1.1\r\n{fields}Connection: Upgrade, HTTP2-Settings, close\r\n\r\n".encode()
    got = await mallory.run(f"answer(direct('plain.allowed.test', 80, {request!r}))")
    # The request is passed on, the wish to leave HTTP is not.
    assert got.endswith("served plain.allowed.test/\n")
    (passed,) = mallory.internet.sites.requests()
    assert {"upgrade", "http2-settings"} & passed.headers.keys() == set()


@transparent_only
async def test_what_is_no_http_on_its_port(mallory: Outbound) -> None:
    for data in (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
        await mallory.run(f"answer(direct('plain.allowed.test', 80, {data!r}))")
    await mallory.refusals(("not_http", *PLAIN_SITE))
    mallory.reached_nothing()


@transparent_only
async def test_a_redirect_to_another_host_is_judged_as_any_flow(mallory: Outbound) -> None:
    script = "curl -s --noproxy '*' --max-time 8 -L 'http://plain.allowed.test/redirect?to=http%3A%2F%2F{}%2F'; echo $?"
    assert (await mallory.inside.text(script.format("evil.test"))).strip() != "0"
    assert (await mallory.inside.text(script.format("169.254.169.254"))).strip() != "0"
    assert {one.address for one in mallory.internet.sites.connections} == {PLAIN}
    await mallory.refusals(("metadata", "169.254.169.254", 80))


@transparent_only
@pytest.mark.parametrize(
    "command",
    [
        "env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY curl",
        "env NO_PROXY='*' no_proxy='*' curl",
        "curl --noproxy '*'",
        "curl",
    ],
    ids=["unset", "NO_PROXY", "--noproxy", "as it is"],
)
async def test_the_environment_changes_no_verdict(mallory: Outbound, command: str) -> None:
    pem = mallory.internet.authority.pem
    await mallory.inside.text(f"cat > /tmp/ca.pem <<'END'\n{pem}END")
    reach = f"{command} -s --cacert /tmp/ca.pem --max-time 8 -o /tmp/got https://"
    allowed = await mallory.inside.shell(f"{reach}api.allowed.test/ && cat /tmp/got")
    assert (allowed.exit_code, allowed.stdout) == (0, "served api.allowed.test/\n")
    assert (await mallory.inside.shell(f"{reach}evil.test/")).exit_code != 0
    assert (await mallory.inside.shell(f"{reach}{EVIL}/")).exit_code != 0
    assert {one.address for one in mallory.internet.sites.connections} == {API}
    await eventually(
        lambda: ("literal_ip", EVIL) in {(e["reason"], e["details"]["host"]) for e in mallory.recorded("egress.denied")}
    )


@any_runtime
@pytest.mark.parametrize("authority", ["proxy.internal:8080", "proxy.internal:3128", "proxy.internal:443"])
async def test_the_proxy_is_no_destination(mallory: Outbound, authority: str) -> None:
    assert await mallory.run(f"answer(connect('{authority}'))") == [403, "loop"]
    host, _, port = authority.partition(":")
    await mallory.refusals(("loop", host, int(port)))
    mallory.reached_nothing()


@any_runtime
async def test_a_request_for_a_tunnel_inside_of_a_tunnel(mallory: Outbound) -> None:
    program = (
        "sock = tunnel('api.allowed.test:443')[1]\nanswer(greet(sock, b'CONNECT evil.test:443 HTTP/1.0\\r\\n\\r\\n'))"
    )
    await mallory.run(program)
    await mallory.refusals(("not_tls", "api.allowed.test", 443))
    mallory.reached_nothing()


@any_runtime
async def test_a_relay_in_the_sandbox_gets_the_same_verdict(mallory: Outbound) -> None:
    program = (
        "import threading\n"
        "relay = socket.create_server(('127.0.0.1', 0))\n"
        "def serve():\n"
        "    near = relay.accept()[0]; far = socket.create_connection(PROXY, LIMIT)\n"
        "    far.sendall(near.recv(4096)); near.sendall(far.recv(4096)); near.close()\n"
        "threading.Thread(target=serve, daemon=True).start()\n"
        "with socket.create_connection(relay.getsockname(), LIMIT) as sock:\n"
        "    sock.sendall(b'CONNECT evil.test:443 HTTP/1.0\\r\\n\\r\\n'); answer(status_of(head_of(sock)))"
    )
    assert await mallory.run(program) == [403, "no_rule"]
    await mallory.refusals(("no_rule", "evil.test", 443))
    mallory.reached_nothing()


@any_runtime
async def test_credentials_of_another_sandbox(mallory: Outbound) -> None:
    program = (
        "import base64\n"
        "other = base64.b64encode(b'iother:token')\n"
        "answer(connect('api.allowed.test:443', b'Proxy-Authorization: Basic ' + other + b'\\r\\n'))"
    )
    assert await mallory.run(program) == [403, "identity"]
    await eventually(lambda: mallory.recorded("egress.denied"))
    (event,) = mallory.recorded("egress.denied")
    assert event["reason"] == "identity"
    mallory.reached_nothing()
