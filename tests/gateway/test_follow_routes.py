"""The table of sandboxes follows the node, and stays as it is while the node is away."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from sandboxes.gateway.app import create_app
from sandboxes.gateway.edge import BadLine, RouteFeed
from sandboxes.gateway.routes import RouteTable
from sandboxes.gateway.settings import GatewaySettings, Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, MALLORY, MALLORY_KEY, Place, until


async def health(place: Place, sandbox_id: str = ALICE) -> int:
    """Return the status of a sandbox's health."""
    async with place.http.get(f"{place.url}/health", headers=place.headers(sandbox_id)) as response:
        return response.status


async def test_it_learns_of_new_and_ended_sandboxes(place: Place) -> None:
    place.edge.put(doubles.row(MALLORY, place.guest.path, {MALLORY_KEY: None}))
    await place.routes(2)
    assert await health(place, MALLORY) == 204

    place.edge.drop(MALLORY)
    await place.routes(1)
    assert await health(place, MALLORY) == 502


async def test_the_table_stays_while_the_node_is_away(place: Place) -> None:
    await place.edge.stop()
    await asyncio.sleep(0.1)

    assert await health(place) == 204


async def test_after_a_reconnect_what_was_not_repeated_is_gone(place: Place) -> None:
    place.edge.put(doubles.row(MALLORY, place.guest.path, {MALLORY_KEY: None}))
    await place.routes(2)
    await place.edge.stop()
    del place.edge.rows[ALICE]
    await place.edge.start()

    await place.routes(1)
    assert await health(place) == 502
    assert await health(place, MALLORY) == 204


async def test_a_sandbox_that_is_used_before_its_row_came_is_waited_for(place: Place) -> None:
    call = asyncio.ensure_future(health(place, "inew"))
    await asyncio.sleep(0.03)
    place.edge.put(doubles.row("inew", place.guest.path, {ALICE_KEY: None}))

    assert await call == 204


async def test_a_sandbox_in_a_state_of_the_future_is_not_found(place: Place) -> None:
    place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: None}, state="hibernating"))
    await place.routes(0)

    assert await health(place) == 502


async def test_an_old_drop_does_not_end_a_new_generation(place: Place) -> None:
    place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: None}, generation=2))
    place.edge.send({"op": "drop", "id": ALICE, "generation": 1})
    place.edge.put(doubles.row(MALLORY, place.guest.path, {}))
    await place.routes(2)

    assert await health(place) == 204


async def test_before_the_first_snapshot_nothing_is_called_unknown(tmp_path: Path) -> None:
    settings = GatewaySettings.under(tmp_path, limits=Limits(drain_seconds=0))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    async with create_app(settings) as gateway:
        await gateway.listen(sock)
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".replace(b"Host: y\r\n", b""))
        writer.close()
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nE2b-Sandbox-Id: i1\r\nE2b-Sandbox-Port: 49983\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in head
        writer.close()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"null",
        b'{"op":"put"}',
        b'{"op":"explode"}',
        json.dumps(doubles.row("../etc", Path("/x"), {})).encode(),
        json.dumps(doubles.row("i1", Path("/x"), {}) | {"access_key": "zz"}).encode(),
        json.dumps(doubles.row("i1", Path("/x"), {}) | {"grants": []}).encode(),
        b'{"op":"drop","id":"i1"}',
    ],
)
async def test_a_malformed_line_changes_nothing(line: bytes) -> None:
    table = RouteTable(Limits())

    with pytest.raises(BadLine):
        RouteFeed(table, Path("/nowhere")).apply(line)
    assert len(table) == 0


async def test_a_bad_line_only_costs_the_connection(place: Place) -> None:
    place.edge.send({"op": "explode"})
    await until(lambda: place.edge.connections == 2)

    assert await health(place) == 204
