"""What a TLS client asks for is what was judged: another name, none, a hidden one or no TLS at all leads nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.internet.world import API
from tests.node.rig import eventually
from tests.security.conftest import any_runtime, transparent_only

if TYPE_CHECKING:
    from tests.security.outbound import Outbound

pytestmark = pytest.mark.asyncio(loop_scope="module")

# How a greeting gets to egress: through a tunnel of the proxy, or by a program that knows none.
OPEN = {
    "proxy": "sock = tunnel('api.allowed.test:443')[1]\n",
    "transparent": "sock = socket.create_connection(('api.allowed.test', 443), LIMIT)\n",
}
both_ways = pytest.mark.parametrize("opened", OPEN.values(), ids=OPEN)
GONE = ("ECONNRESET", "closed")
ECH = 0xFE0D


@transparent_only
async def test_a_listed_name_is_reached_by_a_program_that_knows_no_proxy(mallory: Outbound) -> None:
    got = await mallory.run("answer(https('api.allowed.test'))")
    assert got.endswith("served api.allowed.test/\n")
    details = (await mallory.passed())["details"]
    assert (details["host"], details["port"], details["via"]) == ("api.allowed.test", 443, "transparent")
    assert (details["sni"], details["address"]) == ("api.allowed.test", API)
    assert min(details["bytes_out"], details["bytes_in"]) > 300
    assert mallory.recorded("egress.denied") == []


@transparent_only
@both_ways
@pytest.mark.parametrize(
    ("name", "reason"), [("evil.test", "sni_mismatch"), ("pypi.allowed.test", "sni_mismatch"), (None, "sni_missing")]
)
async def test_another_name_in_the_greeting(mallory: Outbound, opened: str, name: str | None, reason: str) -> None:
    assert await mallory.run(f"{opened}answer(greet(sock, hello({name!r})))") in GONE
    await mallory.refusals((reason, "api.allowed.test", 443))
    mallory.reached_nothing()


@any_runtime
async def test_another_name_in_a_tunnel(mallory: Outbound) -> None:
    assert await mallory.run(f"{OPEN['proxy']}answer(greet(sock, hello('evil.test')))") in GONE
    await mallory.refusals(("sni_mismatch", "api.allowed.test", 443))
    mallory.reached_nothing()


@transparent_only
@both_ways
@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("api.allowed.testXevil.test", "api.allowed.test\\x00evil.test"),
        ("aa.bb.cc.dd", "45.79.1.100"),
        ("api.allowed.testXX", "api.allowed.test.."),
    ],
    ids=["NUL", "address", "two dots"],
)
async def test_a_name_in_the_greeting_that_is_none(mallory: Outbound, opened: str, written: str, sent: str) -> None:
    program = f"{opened}answer(greet(sock, hello('{written}').replace(b'{written}', b'{sent}')))"
    assert await mallory.run(program) in GONE
    await eventually(lambda: mallory.recorded("egress.denied"))
    (event,) = mallory.recorded("egress.denied")
    # The TLS library refuses some of them before they are read as a host.
    assert event["reason"] in ("bad_host", "not_tls")
    mallory.reached_nothing()


PIECES = {
    "a byte at a time": "for place in range(len(data)): sock.sendall(data[place:place + 1]); time.sleep(0.001)",
    "two records": (
        "body = data[5:]; data = b''.join(data[:3] + len(p).to_bytes(2, 'big') + p for p in (body[:90], body[90:]))\n"
        "sock.sendall(data)"
    ),
    "split in the name": (
        "cut = data.index(b'allowed'); sock.sendall(data[:cut]); time.sleep(0.1)\nsock.sendall(data[cut:])"
    ),
}


@transparent_only
@both_ways
@pytest.mark.parametrize("send", PIECES.values(), ids=PIECES)
async def test_a_greeting_in_pieces_is_read_whole(mallory: Outbound, opened: str, send: str) -> None:
    program = f"{opened}sock.setsockopt(6, 1, 1)\ndata = hello('api.allowed.test')\n{send}\nanswer(greet(sock, b''))"
    assert await mallory.run(program) == 22
    assert (await mallory.passed())["details"]["sni"] == "api.allowed.test"


@transparent_only
@both_ways
async def test_a_wrong_greeting_in_pieces_is_refused(mallory: Outbound, opened: str) -> None:
    send = PIECES["two records"]
    assert await mallory.run(f"{opened}data = hello('evil.test')\n{send}\nanswer(greet(sock, b''))") in GONE
    await mallory.refusals(("sni_mismatch", "api.allowed.test", 443))
    mallory.reached_nothing()


@transparent_only
async def test_a_greeting_that_takes_too_long(mallory: Outbound) -> None:
    program = (
        f"{OPEN['proxy']}data = hello('api.allowed.test')\n"
        "def drip():\n    for place in range(60):\n        sock.sendall(data[place:place + 1]); time.sleep(1)\n"
        "answer(outcome_of(drip))"
    )
    assert await mallory.run(program) in ("ECONNRESET", "EPIPE")
    await mallory.refusals(("limit", "api.allowed.test", 443))
    mallory.reached_nothing()


@transparent_only
@both_ways
async def test_a_hidden_name(mallory: Outbound, opened: str) -> None:
    program = f"{opened}answer(greet(sock, with_extension(hello('api.allowed.test'), {ECH}, b'\\0' * 40)))"
    assert await mallory.run(program) in GONE
    await mallory.refusals(("ech", "api.allowed.test", 443))
    mallory.reached_nothing()


@transparent_only
async def test_a_hidden_name_where_the_policy_lets_it_pass(mallory: Outbound) -> None:
    await mallory.change("api.allowed.test:443", version=2, tls={"sni": "require", "ech": "allow"})
    program = f"{OPEN['proxy']}answer(greet(sock, with_extension(hello('api.allowed.test'), {ECH}, b'\\0' * 40)))"
    # The server answers in TLS, if only to say that it does not like the extension.
    assert await mallory.run(program) in (21, 22)
    assert (await mallory.passed())["details"]["sni"] == "api.allowed.test"


@transparent_only
async def test_another_host_inside_of_tls_is_not_seen(mallory: Outbound) -> None:
    """What is encrypted is not read: who may reach a host may ask it for any site that it serves."""
    got = await mallory.run("answer(https('api.allowed.test', host='evil.test'))")
    assert got.endswith("served evil.test/\n")
    assert [one.address for one in mallory.internet.sites.connections] == [API]
    assert (await mallory.passed())["details"]["sni"] == "api.allowed.test"


SPOKEN = {
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a broken greeting": b"\x16\x03\x01\x00\x05hello",
    "another record": b"\x17\x03\x03\x00\x05hello",
    "a greeting of SSLv2": b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
    "raw bytes": bytes(range(256)),
}


@transparent_only
@both_ways
@pytest.mark.parametrize("data", SPOKEN.values(), ids=SPOKEN)
async def test_what_is_no_tls_on_its_port(mallory: Outbound, opened: str, data: bytes) -> None:
    await mallory.run(f"{opened}answer(greet(sock, {data!r}))")
    await mallory.refusals(("not_tls", "api.allowed.test", 443))
    mallory.reached_nothing()


@transparent_only
async def test_a_database_that_speaks_first(mallory: Outbound) -> None:
    program = (
        "with socket.create_connection(('db.allowed.test', 5432), LIMIT) as sock:\n"
        "    first = sock.recv(100).decode(); sock.sendall(b'select 1'); answer([first, sock.recv(100).decode()])"
    )
    assert await mallory.run(program) == ["5.2 database ready\n", "select 1"]
    details = (await mallory.passed())["details"]
    assert (details["host"], details["port"], details["protocol"]) == ("db.allowed.test", 5432, "tcp")


@any_runtime
async def test_a_database_that_speaks_first_through_the_proxy(mallory: Outbound) -> None:
    program = "said, sock = tunnel('db.allowed.test:5432')\nanswer([said, sock.recv(100).decode()])"
    assert await mallory.run(program) == [[200], "5.2 database ready\n"]
