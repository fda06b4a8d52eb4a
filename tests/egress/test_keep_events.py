"""Events stay with egress until the node has them; where they can't stay, nothing new passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.place import BOB, Node, Socket, connect_head, document
from tests.egress.servers import echo

if TYPE_CHECKING:
    from tests.egress.conftest import Place

DB = "db.allowed.test:5432"


@pytest.fixture(scope="module")
def quick() -> dict[str, float]:
    """Room for few events."""
    return {"events_per_sandbox": 5, "repeat_seconds": 0.2}


async def _flow(place: Place, alice: Socket) -> None:
    client = await alice.tunnel(DB)
    client.send(b"hello")
    await client.exactly(5)
    client.close()


async def test_tells_a_new_node_what_the_last_one_did_not_acknowledge(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    await _flow(place, place.alice)
    first = await place.node.event(code="egress.closed")
    await place.node.close()
    second = Node(place.process.control_path)
    second.generation = place.node.generation
    await second.connect()
    again = await second.event(code="egress.closed")
    assert again == first
    await second.ask("acked", upto=again["seq"])
    await second.close()
    third = Node(place.process.control_path)
    await third.connect()
    await third.ask("acked", upto=0)
    assert third.events == []
    await third.close()


async def test_lets_nothing_new_pass_where_it_could_not_be_recorded(place: Place) -> None:
    server = await place.server(nets.API, 5432, echo)
    for _ in range(5):
        await _flow(place, place.alice)
    last = await place.node.event(code="egress.closed")
    while len([one for one in place.node.events if one["generation"] == place.node.generation]) < 5:
        last = await place.node.another()
    client = await place.alice.ask(connect_head(DB))
    assert await client.refusal() == (503, "events_full")
    assert server.connections == 5
    bob = Socket(place.directory / "bob.sock")
    await place.node.put(document(), ident=BOB, listener=bob.listener)
    await _flow(place, bob)
    await place.node.ask("acked", upto=last["seq"])
    await _flow(place, place.alice)
    # The refusal itself waited for room.
    assert (await place.node.event(code="egress.denied"))["reason"] == "events_full"
    await bob.close()


async def test_numbers_events_without_gaps(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    for _ in range(4):
        await _flow(place, place.alice)
    while len([one for one in place.node.events if one["generation"] == place.node.generation]) < 4:
        await place.node.another()
    numbers = [one["seq"] for one in place.node.events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    ids = {one["id"] for one in place.node.events}
    assert len(ids) == len(numbers)
    assert all(len(one) == 32 for one in ids)
