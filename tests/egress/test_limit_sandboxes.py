"""What a sandbox may use, and that one which uses too much hurts itself alone."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from tests.egress import greetings, nets
from tests.egress.place import BOB, Socket, connect_head, document
from tests.egress.servers import echo, web

if TYPE_CHECKING:
    from tests.egress.conftest import Place

DB = "db.allowed.test:5432"


@pytest.fixture(scope="module")
def quick() -> dict[str, float]:
    """Time limits that a test can wait for."""
    return {
        "head_seconds": 1.0,
        "sniff_seconds": 1.0,
        "connect_seconds": 1.0,
        "sweep_seconds": 0.05,
        "opened_seconds": 0.3,
        "repeat_seconds": 2.0,
    }


async def test_takes_so_many_flows_at_once_and_no_more(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    await place.node.put(document(version=2, limits={"flows": 2}))
    first, _ = await place.alice.tunnel(DB), await place.alice.tunnel(DB)
    third = await place.alice.ask(connect_head(DB))
    assert await third.refusal() == (429, "limit")
    assert (await place.node.event(code="egress.denied"))["reason"] == "limit"
    first.close()
    await place.node.event(code="egress.closed")
    await place.alice.tunnel(DB)


async def test_takes_so_many_new_flows_a_second_and_no_more(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    await place.node.put(document(version=2, limits={"new_per_s": 3}))
    answers = [await (await place.alice.ask(connect_head(DB))).head() for _ in range(5)]
    statuses = [answer.split(b" ")[1] for answer in answers]
    assert statuses[:3] == [b"200"] * 3
    assert b"429" in statuses
    assert (await place.node.event(code="egress.denied"))["reason"] == "limit"


async def test_sends_out_so_many_bytes_and_no_more(place: Place) -> None:
    server = await place.server(nets.API, 5432, echo)
    await place.node.put(document(version=2, limits={"bytes_out": 1000}))
    client = await place.alice.tunnel(DB)
    client.send(bytes(900))
    await client.exactly(900)
    client.send(bytes(200))
    assert await client.rest() == b""
    event = await place.node.event(code="egress.closed")
    assert event["reason"] == "limit"
    assert event["details"]["bytes_out"] == 900
    await server.ended.wait()
    assert len(server.received) == 900
    # The budget is the sandbox's, not one connection's.
    again = await place.alice.tunnel(DB)
    again.send(bytes(200))
    assert await again.rest() == b""


async def test_counts_the_bytes_of_requests_as_well(place: Place) -> None:
    server = await place.server(nets.API, 80, web)
    await place.node.put(document(version=2, limits={"bytes_out": 500}))
    head = b"POST http://plain.allowed.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\nContent-Length: 1000\r\n\r\n"
    client = await place.alice.ask(head + bytes(1000))
    await client.rest()
    assert (await place.node.event(code="egress.closed"))["reason"] == "limit"
    assert len(server.received) < 500


async def test_ends_a_flow_in_which_nothing_moves(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    await place.node.put(document(version=2, limits={"idle_s": 1}))
    client = await place.alice.tunnel(DB)
    assert await client.rest() == b""
    event = await place.node.event(code="egress.closed")
    assert event["details"]["closed"] == "idle"


async def test_ends_a_kept_connection_without_a_word(place: Place) -> None:
    """Nothing was refused and nothing was asked for: there is nothing to record but the request before."""
    await place.server(nets.API, 80, web)
    await place.node.put(document(version=2, limits={"idle_s": 1}))
    name = await place.alice.ask(b"GET /v1/names/api.allowed.test HTTP/1.1\r\nHost: proxy\r\n\r\n")
    assert (await name.rest()).startswith(b"HTTP/1.1 204 ")
    head = b"GET http://plain.allowed.test/close HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n"
    client = await place.alice.ask(head)
    assert (await client.answer())[0] == 200
    assert await client.rest() == b""
    await place.node.event(code="egress.closed")
    told = [one for one in place.node.events if one["generation"] == place.node.generation]
    assert [one["code"] for one in told] == ["egress.closed"]


async def test_records_a_flow_that_lives_long_before_its_end(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await place.alice.tunnel(DB)
    event = await place.node.event(code="egress.opened")
    assert event["decision"] == "allow"
    assert event["details"]["host"] == "db.allowed.test"
    client.close()
    await place.node.event(code="egress.closed")


@pytest.mark.parametrize(
    "said",
    [b"", b"CONNECT db.allowed.test:5432 HTTP/1.1\r\nHost: db", b"GET http://plain.allowed.test/ HTTP/1.1\r\n"],
    ids=["nothing", "half a tunnel", "half a request"],
)
async def test_waits_so_long_for_a_request(place: Place, said: bytes) -> None:
    client = await place.alice.ask(said)
    assert await client.refusal() == (429, "limit")
    assert (await place.node.event(code="egress.denied"))["reason"] == "limit"


@pytest.mark.parametrize("count", [0, 1, 100], ids=["nothing", "a byte", "half of it"])
async def test_waits_so_long_for_a_greeting(place: Place, count: int) -> None:
    api = await place.server(nets.API, 443, echo)
    client = await place.alice.tunnel("api.allowed.test:443")
    client.send(greetings.greeting("api.allowed.test")[:count])
    assert await client.rest() == b""
    assert (await place.node.event(code="egress.denied"))["reason"] == "limit"
    assert api.connections == 0


async def test_waits_so_long_for_a_server_that_does_not_answer(place: Place) -> None:
    place.names.zone["db.allowed.test"] = [nets.SILENT]
    client = await place.alice.ask(connect_head(DB))
    assert await client.refusal() == (502, "connect_failed")


async def test_counts_equal_refusals_instead_of_telling_each(place: Place) -> None:
    for _ in range(5):
        client = await place.alice.ask(connect_head("evil.test:443"))
        await client.refusal()
    event = await place.node.event(code="egress.denied", count=4)
    assert event["details"]["host"] == "evil.test"
    told = [one for one in place.node.events if one["generation"] == place.node.generation]
    assert [one["details"]["count"] for one in told] == [1, 4]


async def test_lets_no_flood_of_half_open_connections_hurt_a_neighbour(place: Place) -> None:
    """Bob opens ten thousand connections that ask for nothing; Alice's flows pass while he does."""
    await place.server(nets.API, 5432, echo)
    bob = Socket(place.directory / "bob.sock")
    await place.node.put(document(version=1, limits={"new_per_s": 50}), ident=BOB, listener=bob.listener)
    flood, full = [], 0
    for number in range(10_000):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(str(bob.path))
            flood.append(sock)
        except BlockingIOError:
            # His queue in the kernel is full: the rest of his connections do not even come into being.
            sock.close()
            full += 1
        if number % 1000 == 0:
            client = await place.alice.tunnel(DB)
            client.send(b"hello")
            assert await client.exactly(5) == b"hello"
            client.close()
    assert full > 0
    for sock in flood:
        sock.close()
    await bob.close()


async def test_serves_a_sandbox_again_after_its_flood(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    await place.node.put(document(version=2, limits={"flows": 1}))
    waiting = [await place.alice.connect() for _ in range(100)]
    for client in waiting:
        client.close()
    async with asyncio.timeout(20):
        await place.alice.tunnel(DB)
