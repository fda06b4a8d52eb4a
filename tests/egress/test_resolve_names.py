"""Names become addresses in egress alone: by its own name servers, once for a flow, and all of an answer or nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.place import connect_head, document
from tests.egress.servers import echo

if TYPE_CHECKING:
    from tests.egress.conftest import Place

DB = "db.allowed.test"
TUNNEL = connect_head(f"{DB}:5432")


async def _reaches(place: Place) -> str:
    """Return the address that Alice's flow leads to."""
    client = await place.alice.tunnel(f"{DB}:5432")
    client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    client.close()
    return str((await place.node.event(code="egress.closed"))["details"]["address"])


async def test_asks_its_own_name_server_for_the_decided_name(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    assert await _reaches(place) == nets.API
    assert place.names.asked == [(DB, "A")]


async def test_asks_again_only_when_the_zone_says_so(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    for _ in range(2):
        await place.alice.tunnel(f"{DB}:5432")
    assert len(place.names.asked) == 1


async def test_asks_once_for_flows_that_begin_together(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    place.names.ttl = 0
    await asyncio.gather(*(place.alice.tunnel(f"{DB}:5432") for _ in range(20)))
    assert len(place.names.asked) < 20


async def test_follows_aliases(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    place.names.aliases = {DB: "one.elsewhere.test", "one.elsewhere.test": "two.elsewhere.test"}
    place.names.zone["two.elsewhere.test"] = [nets.API]
    assert await _reaches(place) == nets.API


async def test_asks_over_tcp_when_an_answer_is_cut_short(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    place.names.truncate = True
    assert await _reaches(place) == nets.API


async def test_believes_no_answer_to_another_question(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    place.names.forge = True
    assert await _reaches(place) == nets.API


async def test_tries_the_next_address_when_one_is_dead(place: Place) -> None:
    await place.server(nets.OTHER, 5432, echo)
    place.names.zone[DB] = [nets.API, nets.SILENT, nets.OTHER]
    assert await _reaches(place) == nets.OTHER


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (["127.0.0.1"], "resolved_private"),
        (["10.20.0.5"], "resolved_private"),
        (["0.0.0.0"], "resolved_private"),
        (["169.254.1.1"], "resolved_private"),
        (["198.18.0.1"], "resolved_private"),
        (["224.0.0.1"], "resolved_private"),
        ([nets.OWN], "resolved_private"),
        (["169.254.169.254"], "metadata"),
        (["168.63.129.16"], "metadata"),
        ([nets.API, "10.20.0.5"], "resolved_private"),
        (["10.20.0.5", nets.API], "resolved_private"),
    ],
)
async def test_refuses_answers_that_lead_inside(place: Place, addresses: list[str], reason: str) -> None:
    inside = await place.server(nets.INTERNAL, 5432, echo)
    outside = await place.server(nets.API, 5432, echo)
    place.names.zone[DB] = addresses
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (403, reason)
    assert (await place.node.event(code="egress.denied"))["reason"] == reason
    assert (inside.connections, outside.connections) == (0, 0)


async def test_refuses_an_alias_that_leads_inside(place: Place) -> None:
    inside = await place.server(nets.INTERNAL, 5432, echo)
    place.names.aliases = {DB: "localhost.internal.test"}
    place.names.zone["localhost.internal.test"] = [nets.INTERNAL]
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (403, "resolved_private")
    assert inside.connections == 0


async def test_stays_outside_when_a_name_moves_inside(place: Place) -> None:
    """Rebinding: the address of one flow is asked for once, that of the next one is judged again."""
    inside = await place.server(nets.INTERNAL, 5432, echo)
    await place.server(nets.API, 5432, echo)
    place.names.ttl = 0
    place.names.turns[DB] = [[nets.API], [nets.INTERNAL]]
    assert await _reaches(place) == nets.API
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (403, "resolved_private")
    assert len(place.names.asked) == 2
    assert inside.connections == 0


async def test_reaches_a_private_range_that_was_granted(place: Place) -> None:
    await place.server(nets.INTERNAL, 5432, echo)
    place.names.zone[DB] = [nets.INTERNAL]
    await place.node.put(document(version=2, private=["10.20.0.0/16"]))
    assert await _reaches(place) == nets.INTERNAL


async def test_reaches_no_network_that_is_denied_by_whatever_name(place: Place) -> None:
    server = await place.server(nets.API, 5432, echo)
    await place.node.put(document(f"{DB}:5432", f"!{nets.API}/32:5432", version=2))
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (403, "no_rule")
    await place.node.put(document(f"{DB}:5432", version=3, deny=[f"{nets.API}/32:1-65535"]))
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (403, "operator_deny")
    assert server.connections == 0


async def test_never_reaches_metadata_by_a_grant(place: Place) -> None:
    place.names.zone[DB] = [nets.LINK_LOCAL]
    await place.node.put(document(version=2, private=["0.0.0.0/0"]))
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (403, "metadata")


async def test_refuses_a_name_that_does_not_exist(place: Place) -> None:
    del place.names.zone[DB]
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (502, "resolve_failed")


async def test_refuses_when_nothing_listens(place: Place) -> None:
    client = await place.alice.ask(TUNNEL)
    assert await client.refusal() == (502, "connect_failed")
    event = await place.node.event(code="egress.denied", reason="connect_failed")
    assert event["details"]["rule"] == f"{DB}:5432"


@pytest.mark.parametrize("name", ["api.allowed.test", "API.allowed.test.", "x.wild.allowed.test", "proxy.internal"])
async def test_tells_the_guest_that_a_name_may_be_reached(place: Place, name: str) -> None:
    client = await place.alice.ask(_question(name))
    assert (await client.head()).startswith(b"HTTP/1.1 204 ")
    assert place.names.asked == []


async def test_tells_the_guest_that_a_name_may_not_be_reached(place: Place) -> None:
    client = await place.alice.ask(_question("c2VjcmV0.evil.test") + _question("api.allowed.test"))
    assert await client.refusal() == (403, "dns_denied")
    assert (await client.head()).startswith(b"HTTP/1.1 204 ")
    event = await place.node.event(code="egress.dns_denied")
    assert event["details"]["host"] == "c2VjcmV0.evil.test".lower()
    assert place.names.asked == []


async def test_answers_no_names_where_the_policy_has_no_dns(place: Place) -> None:
    await place.node.put(document(version=2, dns=False))
    client = await place.alice.ask(_question("api.allowed.test"))
    assert await client.refusal() == (403, "dns_denied")


@pytest.mark.parametrize("name", ["", "a%00b", "1.2.3.4", "a..b", "%ff", "a/b", "x" * 64])
async def test_refuses_what_is_no_name(place: Place, name: str) -> None:
    client = await place.alice.ask(f"GET /v1/names/{name} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode())
    assert await client.refusal() == (400, "bad_host")


async def test_counts_a_flood_of_names_instead_of_telling_each(place: Place) -> None:
    client = await place.alice.connect()
    for number in range(190):
        client.send(_question(f"n{number}.evil.test"))
        assert (await client.refusal())[1] == "dns_denied"
    await asyncio.sleep(0)
    told = [one for one in place.node.events if one["generation"] == place.node.generation]
    assert len(told) <= 129


def _question(name: str) -> bytes:
    return f"GET /v1/names/{name} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode()
