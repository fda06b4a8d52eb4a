"""What passes through a tunnel arrives whole and in order, whatever either end does meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests.egress import nets
from tests.egress.place import connect_head
from tests.egress.servers import echo

if TYPE_CHECKING:
    from tests.egress.conftest import Place
    from tests.egress.place import Client

DB = "db.allowed.test:5432"
MIB = 1024 * 1024


async def _sum_of(client: Client, size: int, *, slowly: bool = False) -> str:
    summed = hashlib.sha256()
    left = size
    while left:
        data = await client.exactly(min(left, MIB))
        summed.update(data)
        left -= len(data)
        if slowly:
            # Full buffers everywhere: egress has to keep what nobody takes, and to stop reading.
            await asyncio.sleep(0.01)
    return summed.hexdigest()


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "slowly"])
async def test_downloads_arrive_whole(place: Place, slowly: bool) -> None:  # noqa: FBT001
    data = random.Random(1).randbytes(24 * MIB)

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    await place.server(nets.API, 5432, send)
    client = await place.alice.tunnel(DB)
    assert await _sum_of(client, len(data), slowly=slowly) == hashlib.sha256(data).hexdigest()
    assert await client.rest() == b""
    client.close()
    assert (await place.node.event(code="egress.closed"))["details"]["bytes_in"] == len(data)


async def test_bytes_go_both_ways_at_once(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    data = random.Random(2).randbytes(16 * MIB)
    client = await place.alice.tunnel(DB)
    client.send(data)
    assert await _sum_of(client, len(data)) == hashlib.sha256(data).hexdigest()
    client.close()
    assert (await place.node.event(code="egress.closed"))["details"]["bytes_out"] == len(data)


async def test_many_flows_do_not_mix(place: Place) -> None:
    await place.server(nets.API, 5432, echo)

    async def one(number: int) -> None:
        data = bytes([number]) * 2 * MIB
        client = await place.alice.tunnel(DB)
        client.send(data)
        assert await _sum_of(client, len(data)) == hashlib.sha256(data).hexdigest()

    await asyncio.gather(*(one(number) for number in range(40)))


async def test_what_is_sent_along_with_the_request_goes_first(place: Place) -> None:
    await place.server(nets.API, 5432, echo)
    client = await place.alice.ask(connect_head(DB) + b"first")
    await client.head()
    client.send(b"second")
    assert await client.exactly(11) == b"firstsecond"


async def test_one_side_may_end_and_the_other_go_on(place: Place) -> None:
    async def afterwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = b""
        while data := await reader.read():
            asked += data
        writer.write(b"you said " + asked)

    await place.server(nets.API, 5432, afterwards)
    client = await place.alice.tunnel(DB)
    client.send(b"everything")
    client.writer.write_eof()
    assert await client.rest() == b"you said everything"
    assert (await place.node.event(code="egress.closed"))["details"]["closed"] == "done"


async def test_a_server_that_resets_ends_the_flow(place: Place) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    await place.server(nets.API, 5432, reset)
    client = await place.alice.tunnel(DB)
    client.send(b"hello")
    assert await client.rest() == b""
    assert (await place.node.event(code="egress.closed"))["details"]["closed"] == "reset"


async def test_a_server_that_dribbles_is_passed_on_byte_by_byte(place: Place) -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"slowly":
            writer.write(bytes([byte]))
            await writer.drain()
            await reader.readexactly(1)

    await place.server(nets.API, 5432, dribble)
    client = await place.alice.tunnel(DB)
    for byte in b"slowly":
        assert await client.exactly(1) == bytes([byte])
        client.send(b".")


async def test_a_client_that_goes_away_ends_the_servers_connection(place: Place) -> None:
    server = await place.server(nets.API, 5432, echo)
    client = await place.alice.tunnel(DB)
    client.send(b"hello")
    await client.exactly(5)
    client.close()
    await server.ended.wait()
