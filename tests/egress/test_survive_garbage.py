"""Whatever bytes come: an answer or an end, nothing to any server, and egress goes on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.egress import greetings, nets
from tests.egress.place import connect_head
from tests.egress.servers import echo, web

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.egress.conftest import Place

GOOD = [
    connect_head("api.allowed.test:443"),
    connect_head("plain.allowed.test:80"),
    b"GET http://plain.allowed.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n",
    b"POST http://plain.allowed.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v1/names/api.allowed.test HTTP/1.1\r\nHost: proxy\r\n\r\n",
]
PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"\t",
        b"\xff",
        b"HTTP/1.1",
        b"HTTP/2",
        b"CONNECT ",
        b"GET ",
        b"Host: ",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Connection: close\r\n", b"evil.test", b"@", b"#"),
    *(b"\x16\x03\x01", b"Upgrade: websocket\r\n", b"127.0.0.1", b"[::1]", b"%00", b"a" * 5000),
]
ROUNDS = 400


@pytest.fixture(scope="module")
def quick() -> dict[str, float]:
    """Time limits that a test can wait for; what is half a request ends soon."""
    return {
        "head_seconds": 0.3,
        "sniff_seconds": 0.3,
        "connect_seconds": 0.5,
        "sweep_seconds": 0.05,
        "idle_seconds": 0.3,
    }


def mutated(chance: random.Random) -> bytes:
    """Return a request in which some things are not as they should be, or no request at all."""
    if chance.random() < 0.15:
        return chance.randbytes(chance.randrange(1, 400))
    data = bytearray(chance.choice(GOOD))
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at:at] = chance.choice(PIECES)
            case 2:
                del data[at : at + chance.randrange(1, 12)]
            case _:
                data[at : at + 1] = bytes([data[at] ^ (1 << chance.randrange(8))])
    return bytes(data)


def cuts(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """Yield the bytes in pieces, as a network might."""
    at = 0
    while at < len(data):
        size = chance.choice([1, 7, 1000])
        yield data[at : at + size]
        at += size


@pytest.mark.parametrize("seed", range(4))
async def test_answers_or_ends_whatever_is_asked(place: Place, seed: int) -> None:
    evil = [await place.server(nets.EVIL, port, web) for port in (80, 443, 8080)]
    allowed = await place.server(nets.API, 80, web)
    tls = await place.server(nets.API, 443, echo)
    place.names.zone["plain.allowed.test"] = [nets.API]
    chance = random.Random(seed)
    for _ in range(ROUNDS // 4):
        client = await place.alice.connect()
        for piece in cuts(chance, mutated(chance)):
            client.send(piece)
        client.writer.write_eof()
        answer = await client.rest()
        assert not answer or answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), answer[:80]
        client.close()
    assert [server.connections for server in evil] == [0, 0, 0]
    # No greeting was sent, so nobody spoke to the TLS host; and what the web saw was written by egress.
    assert tls.connections == 0
    assert b"evil.test" not in allowed.received.replace(b"/evil.test", b"")
    assert all(name.endswith("allowed.test") for name, _ in place.names.asked)
    assert place.process.process is not None
    assert place.process.process.poll() is None
    assert (await (await place.alice.ask(connect_head("evil.test:443"))).refusal()) == (403, "no_rule")


@pytest.mark.parametrize("seed", range(4))
async def test_believes_no_broken_greeting(place: Place, seed: int) -> None:
    """A changed greeting passes only if the name in it is still the one that was judged."""
    api = await place.server(nets.API, 443, echo)
    chance = random.Random(seed)
    for _ in range(ROUNDS // 10):
        before = len(api.received)
        hello = bytearray(greetings.greeting("api.allowed.test"))
        for _ in range(chance.randrange(1, 4)):
            hello[chance.randrange(len(hello))] = chance.randrange(256)
        client = await place.alice.tunnel("api.allowed.test:443")
        for piece in cuts(chance, bytes(hello)):
            client.send(piece)
        client.writer.write_eof()
        echoed = await client.rest()
        client.close()
        if echoed or len(api.received) > before:
            assert b"\0\0\x10api.allowed.test" in hello
    assert place.process.process is not None
    assert place.process.process.poll() is None
