"""A policy changes while flows are open: what lost its right is closed before the node is told that it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.egress import greetings, nets
from tests.egress.place import BOB, Socket, connect_head, document
from tests.egress.servers import echo, web

if TYPE_CHECKING:
    from tests.egress.conftest import Place
    from tests.egress.place import Client

DB = "db.allowed.test:5432"


async def _open(place: Place) -> Client:
    client = await place.alice.tunnel(DB)
    client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    return client


async def test_closes_a_tunnel_that_lost_its_right_and_keeps_the_others(place: Place) -> None:
    server = await place.server(nets.API, 5432, echo)
    await place.server(nets.API, 443, echo)
    lost = await _open(place)
    kept = await place.alice.tunnel("api.allowed.test:443")
    hello = greetings.greeting("api.allowed.test")
    kept.send(hello)
    assert await kept.exactly(len(hello)) == hello
    done = await place.node.put(document("api.allowed.test:443", version=2))
    assert (done["op"], done["version"]) == ("done", 2)
    assert await lost.rest() == b""
    await server.ended.wait()
    event = await place.node.event(code="egress.closed")
    assert event["reason"] == "policy_closed"
    assert event["details"]["closed"] == "policy_closed"
    kept.send(b"still")
    assert await kept.exactly(5) == b"still"


async def test_lets_the_next_flow_pass_once_it_may(place: Place) -> None:
    await place.server(nets.EVIL, 5432, echo)
    client = await place.alice.ask(connect_head("evil.test:5432"))
    assert await client.refusal() == (403, "no_rule")
    await place.node.put(document("evil.test:5432", version=2))
    await place.alice.tunnel("evil.test:5432")


@pytest.mark.parametrize(
    "changed",
    [
        document(version=2, deny=["db.allowed.test:1-65535"]),
        document("!db.allowed.test:5432", "db.allowed.test:5432", version=2),
        document("db.allowed.test:5432/tls", version=2),
        document("db.allowed.test:5433", version=2),
    ],
    ids=["operator", "denied", "protocol", "port"],
)
async def test_closes_for_each_kind_of_loss(place: Place, changed: dict[str, object]) -> None:
    await place.server(nets.API, 5432, echo)
    client = await _open(place)
    assert (await place.node.put(changed))["op"] == "done"
    assert await client.rest() == b""


async def test_closes_a_flow_to_a_range_that_is_granted_no_more(place: Place) -> None:
    await place.server(nets.INTERNAL, 5432, echo)
    place.names.zone["db.allowed.test"] = [nets.INTERNAL]
    await place.node.put(document(version=2, private=["10.20.0.0/16"]))
    client = await _open(place)
    await place.node.put(document(version=3))
    assert await client.rest() == b""


async def test_closes_a_flow_whose_address_is_denied_from_now_on(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await _open(place)
    await place.node.put(document(DB, version=2, deny=[f"{nets.API}/32:1-65535"]))
    assert await client.rest() == b""
    assert (await place.node.event(code="egress.closed"))["reason"] == "policy_closed"


async def test_closes_an_encrypted_name_that_is_allowed_no_more(place: Place) -> None:
    await place.server(nets.API, 443, echo)
    await place.node.put(document(version=2, tls={"ech": "allow"}))
    client = await place.alice.tunnel("api.allowed.test:443")
    hello = greetings.encrypted("api.allowed.test")
    client.send(hello)
    assert await client.exactly(len(hello)) == hello
    await place.node.put(document(version=3))
    assert await client.rest() == b""


async def test_judges_a_kept_connection_by_the_new_policy(place: Place) -> None:
    server = await place.server(nets.API, 80, web)
    client = await place.alice.ask(b"GET http://plain.allowed.test/1 HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
    assert (await client.answer())[0] == 200
    await place.node.put(document("api.allowed.test:443", version=2))
    client.send(b"GET http://plain.allowed.test/2 HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
    assert await client.rest() == b""
    assert b"/2" not in server.received


async def test_closes_a_tunnel_that_waits_for_its_greeting(place: Place) -> None:
    api = await place.server(nets.API, 443, echo)
    client = await place.alice.tunnel("api.allowed.test:443")
    await place.node.put(document("pypi.allowed.test:443", version=2))
    assert await client.rest() == b""
    assert (await place.node.event(code="egress.denied"))["reason"] == "policy_closed"
    assert api.connections == 0


async def test_refuses_a_document_that_it_does_not_understand_and_keeps_the_old_one(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await _open(place)
    for broken in ({}, {**document(version=2), "more": 1}, document("*:443", version=2)):
        assert (await place.node.put(broken))["op"] == "failed"
    client.send(b"still")
    assert await client.exactly(5) == b"still"


async def test_closes_everything_of_a_sandbox_that_is_dropped(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await _open(place)
    await place.node.ask("drop", id="ialice", generation=place.node.generation + 1)
    client.send(b"still")
    assert await client.exactly(5) == b"still"
    assert (await place.node.ask("drop", id="ialice", generation=place.node.generation))["op"] == "done"
    assert await client.rest() == b""
    place.alice.listener.close()
    with pytest.raises(ConnectionRefusedError):
        await place.alice.connect()


async def test_gives_a_new_generation_nothing_of_the_old_one(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await _open(place)
    again = Socket(place.directory / "again.sock")
    await place.node.put(
        document("api.allowed.test:443"), generation=place.node.generation + 500, listener=again.listener
    )
    assert await client.rest() == b""
    refused = await again.ask(connect_head(DB))
    assert await refused.refusal() == (403, "no_rule")
    await again.close()


async def test_keeps_sandboxes_apart(place: Place) -> None:
    bob = Socket(place.directory / "bob.sock")
    await place.node.put(document("evil.test:5432"), ident=BOB, listener=bob.listener)
    refused = await bob.ask(connect_head(DB))
    assert await refused.refusal() == (403, "no_rule")
    refused = await place.alice.ask(connect_head("evil.test:5432"))
    assert await refused.refusal() == (403, "no_rule")
    assert (await place.node.event(code="egress.denied", host="db.allowed.test"))["sandbox"] == BOB
    assert (await place.node.event(code="egress.denied", host="evil.test"))["sandbox"] == "ialice"
    await bob.close()
