"""The control socket: who may speak on it, in which order, and what happens when nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING

from tests.egress import nets
from tests.egress.place import BOB, Node, Socket, connect_head, document
from tests.egress.servers import echo

if TYPE_CHECKING:
    from tests.egress.conftest import Place

DB = "db.allowed.test:5432"


async def test_greets_the_node(place: Place) -> None:
    assert place.node.hello["op"] == "hello"
    assert place.process.process is not None
    assert place.node.hello["pid"] == place.process.process.pid


async def test_keeps_serving_when_the_node_goes_away(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    await place.node.close()
    client = await place.alice.tunnel(DB)
    client.send(b"hello")
    assert await client.exactly(5) == b"hello"


async def test_obeys_the_node_that_came_last(place: Place) -> None:
    second = Node(place.process.control_path)
    await second.connect()
    await place.node.lost.wait()
    assert (await second.put(document("evil.test:5432", version=2), generation=place.node.generation))["op"] == "done"
    refused = await place.alice.ask(connect_head(DB))
    assert await refused.refusal() == (403, "no_rule")
    await second.close()


async def test_drops_what_a_new_node_does_not_name(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    bob = Socket(place.directory / "bob.sock")
    await place.node.put(document(), ident=BOB, listener=bob.listener)
    alices, bobs = await place.alice.tunnel(DB), await bob.tunnel(DB)
    second = Node(place.process.control_path)
    await second.connect()
    await second.put(document(), ident=BOB, generation=place.node.generation)
    await second.ask("synced")
    assert await alices.rest() == b""
    bobs.send(b"hello")
    assert await bobs.exactly(5) == b"hello"
    await second.close()
    await bob.close()


async def test_accepts_nothing_before_it_was_told_of_everything(place: Place) -> None:
    place.process.kill()
    place.process.start()
    node = Node(place.process.control_path)
    await node.connect()
    await node.put(document(), listener=place.alice.listener)
    client = await place.alice.ask(connect_head("evil.test:443"))
    await node.put(document(version=2))
    assert not client.reader._buffer  # type: ignore[attr-defined]
    await node.ask("synced")
    assert await client.refusal() == (403, "no_rule")
    await node.leave()


async def test_refuses_flows_while_it_is_dead_and_serves_again_afterwards(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    open_one = await place.alice.tunnel(DB)
    place.process.kill()
    assert await open_one.rest() == b""
    waiting = await place.alice.ask(connect_head(DB))
    place.process.start()
    node = Node(place.process.control_path)
    await node.connect()
    await node.put(document(), listener=place.alice.listener)
    await node.ask("synced")
    assert (await waiting.head()).startswith(b"HTTP/1.1 200 ")
    await node.leave()


async def test_answers_everything_to_a_node_that_reads_late(place: Place) -> None:
    """Its queue is full of answers and events; none of them is lost, and neither waits for ever."""
    loop = asyncio.get_running_loop()
    late = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    await loop.sock_connect(late, str(place.process.control_path))
    await loop.sock_recv(late, 1 << 20)
    asked = 0
    put = {"op": "put", "id": "ialice", "generation": place.node.generation, "tenant": "00", "network": document()}
    with contextlib.suppress(TimeoutError):
        while asked < 3000:
            async with asyncio.timeout(1):
                await loop.sock_sendall(late, json.dumps({**put, "n": asked}).encode())
            asked += 1
    for number in range(20):
        client = await place.alice.ask(connect_head(f"n{number}.evil.test:443"))
        assert await client.refusal() == (403, "no_rule")
    answered: set[int] = set()
    told: set[str] = set()
    async with asyncio.timeout(20):
        while len(answered) < asked or len(told) < 20:
            message = json.loads(await loop.sock_recv(late, 1 << 20))
            if message["op"] == "done":
                answered.add(message["n"])
            else:
                told |= {one["details"]["host"] for one in message["events"] if one["code"] == "egress.denied"}
    late.close()


async def test_needs_a_listener_for_a_new_sandbox(place: Place) -> None:
    answer = await place.node.put(document(), ident=BOB)
    assert answer["op"] == "failed"
    assert "listener" in answer["reason"]


async def test_survives_orders_that_make_no_sense(place: Place) -> None:
    for nonsense in (b"{", b"[]", b"null", b'{"op": "fly", "n": 900}', b'{"op": "put", "n": 901}', b"\xff"):
        place.node.tell(nonsense)
    first, second = os.pipe()
    place.node.tell(b'{"op": "synced"}', first, second)
    os.close(first)
    os.close(second)
    assert (await place.node.put(document(version=5)))["version"] == 5


async def test_ends_in_good_order(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await place.alice.tunnel(DB)
    assert place.process.process is not None
    place.process.process.terminate()
    assert await client.rest() == b""
    event = await place.node.event(code="egress.closed")
    assert (event["reason"], event["details"]["closed"]) == (None, "sandbox_ended")
    assert await asyncio.to_thread(place.process.process.wait, 20) == 0
    place.process.start()
