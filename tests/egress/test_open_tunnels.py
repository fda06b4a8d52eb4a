"""Tunnels to hosts that the policy allows: who gets one, what passes through it, and what is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.egress import nets
from tests.egress.place import connect_head
from tests.egress.servers import echo, hello_first

if TYPE_CHECKING:
    from tests.egress.conftest import Place


async def test_passes_bytes_of_a_named_tcp_port_both_ways(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await place.alice.tunnel("db.allowed.test:5432")
    client.send(b"select 1")
    assert await client.exactly(8) == b"select 1"
    client.writer.write_eof()
    assert await client.rest() == b""
    event = await place.node.event(code="egress.closed")
    assert event["decision"] == "allow"
    details = event["details"]
    assert details["host"] == "db.allowed.test"
    assert details["port"] == 5432
    assert details["address"] == nets.API
    assert details["rule"] == "db.allowed.test:5432"
    assert (details["bytes_out"], details["bytes_in"]) == (8, 8)
    assert details["closed"] == "done"


async def test_lets_the_server_speak_first(place: Place) -> None:
    await place.server(nets.API, 5432, hello_first)
    client = await place.alice.tunnel("db.allowed.test:5432")
    assert await client.exactly(6) == b"ready\n"


async def test_refuses_what_no_rule_names(place: Place) -> None:
    evil = await place.server(nets.EVIL, 443, echo)
    client = await place.alice.ask(connect_head("evil.test:443"))
    assert await client.refusal() == (403, "no_rule")
    event = await place.node.event(code="egress.denied")
    assert event["reason"] == "no_rule"
    assert event["details"]["host"] == "evil.test"
    assert event["details"]["count"] == 1
    assert evil.connections == 0
    assert place.names.asked == []
