"""A server inside a sandbox, or an agent that plays one, lies: its own answer breaks and nobody else's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sandboxes.gateway.settings import Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, Place, request_bytes, until
from tests.gateway.sites import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = f"8080-{ALICE}.sbx.example"
OK = b"HTTP/1.1 200 OK\r\n"
TUNNEL = ("CONNECT", "127.0.0.1:8080")


@pytest.fixture
def limits() -> Limits:
    """Wait only shortly for what never comes."""
    return Limits(drain_seconds=0.2, intent_seconds=0.3, idle_seconds=0.5, upgraded_idle_seconds=0.5)


async def ask(place: Place) -> bytes:
    """Ask the port; return everything up to the connection's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(request_bytes("GET / HTTP/1.1", Host=HOST, Connection="close"))
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def honest(place: Place) -> None:
    """Check that the next request gets its own answer."""
    place.guest.open_port(8081, Site())
    assert (await place.raw("GET / HTTP/1.1", Host=f"8081-{ALICE}.sbx.example"))[2] == b"hello from inside"


def once(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a server that answers each connection's first request with these bytes and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_head(reader)
        writer.write(answer)

    return serve


@pytest.mark.parametrize(
    "lie",
    [
        b"",
        b"\0" * 100_000,
        b"HTTP/1.1 999 X\r\n\r\n",
        b"HTTP/1.1 200\r\nno colon\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        OK + b"A: b\r\n" * 200 + b"\r\n",
        OK + b"A: " + b"b" * 80_000 + b"\r\n\r\n",
        OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 103 X\r\n\r\n" * 20,
    ],
)
async def test_a_false_head_is_a_502(place: Place, lie: bytes) -> None:
    place.guest.open_port(8080, once(lie))

    assert (await ask(place)).startswith(b"HTTP/1.1 502 ")
    await honest(place)


@pytest.mark.parametrize(
    "lie",
    [
        OK + b"Content-Length: 10\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX5\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 5000,
    ],
)
async def test_a_false_body_is_never_a_whole_answer(place: Place, lie: bytes) -> None:
    place.guest.open_port(8080, once(lie))

    answer = await ask(place)

    assert not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith((b"0\r\n\r\n", b"helloXXXXX"))
    await honest(place)


async def test_a_second_answer_reaches_nobody(place: Place) -> None:
    place.guest.open_port(8080, once(doubles.answer(200, b"first") + doubles.answer(200, b"second")))

    for _ in range(3):
        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[2] == b"first"
    assert len(place.guest.calls(*TUNNEL)) == 3


async def test_an_answer_before_its_question_reaches_nobody(place: Place) -> None:
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_head(reader)
        writer.write(doubles.answer(200, b"asked"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(doubles.answer(200, b"unasked"))
        await reader.read()

    place.guest.open_port(8080, eager)
    for _ in range(3):
        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[2] == b"asked"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "lie",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: tcp\r\n\r\n",
        OK + b"A: b\r\n" * 200 + b"\r\n",
    ],
)
async def test_an_agent_that_lies_about_a_port_is_a_502(place: Place, lie: bytes) -> None:
    async def connect(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(lie)
        await writer.drain()
        return False

    place.guest._scripts[TUNNEL] = connect

    assert (await ask(place)).startswith(b"HTTP/1.1 502 ")
    await honest(place)


async def test_an_agent_that_answers_in_the_servers_place_harms_its_own_port_alone(place: Place) -> None:
    async def connect(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        # A length on CONNECT's answer means nothing; what follows is the tunnel.
        writer.write(OK + b"Content-Length: 5\r\n\r\n" + doubles.answer(200, b"forged"))
        await writer.drain()
        return False

    place.guest._scripts[TUNNEL] = connect

    assert (await ask(place)).endswith(b"forged")
    await honest(place)


async def test_a_silent_server_is_given_up(place: Place) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    place.guest.open_port(8080, silent)
    assert (await ask(place)).startswith(b"HTTP/1.1 502 ")

    place.guest.open_port(8080, once(OK + b"Content-Length: 10\r\n\r\nhello"))
    assert not (await ask(place)).endswith(b"hello\r\n")


async def test_a_server_that_floods_waits_for_a_slow_client(place: Place) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await doubles.read_head(reader)
        writer.write(OK + b"Content-Type: text/plain\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    place.guest.open_port(8080, flood)
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port, limit=65_536)
    writer.write(request_bytes("GET / HTTP/1.1", Host=HOST))
    await reader.readuntil(b"\r\n\r\n")
    await until(lambda: sent > 65_536)
    await asyncio.sleep(0.2)
    assert sent < 16 * 1024 * 1024
    writer.close()
