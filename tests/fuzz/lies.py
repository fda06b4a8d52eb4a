"""Lies that a guest agent can tell whoever asks it something. Each is made from a seeded die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable

from tests.gateway import doubles

Lie = Callable[[random.Random], bytes]

_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/connect+json\r\nTransfer-Encoding: chunked\r\n\r\n"
_FLOOD = bytes(65_536)
_FLOOD_PIECES = 400


def no_head(dice: random.Random) -> bytes:
    """A head that is none."""
    return dice.choice(
        [
            dice.randbytes(dice.choice([1, 50, 5_000])),
            b"\r\n" * dice.randrange(1, 5_000),
            b"HTTP/1.1 20",
            b"HTTP/1.1 999999999999 OK\r\n\r\n",
            b"HTTP/1.1 -200 OK\r\n\r\n",
            b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    )


def endless_head(dice: random.Random) -> bytes:
    """A head that does not end."""
    return b"HTTP/1.1 200 OK\r\n" + dice.choice(
        [b"X: y\r\n" * 50_000, b"X: " + b"y" * 2_000_000, b"X" * 2_000_000, b"Set-Cookie: a=b\r\n" * 50_000]
    )


def false_length(dice: random.Random) -> bytes:
    """A body that is not as long as its head says."""
    length = dice.choice(["-1", "5", "9" * 30, "0x10", "5, 6", "", "1e9", "100000000000"])
    second = dice.choice(["", "Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n"])
    body = dice.randbytes(dice.choice([0, 3, 5, 9, 70_000]))
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{second}\r\n".encode() + body


def false_chunks(dice: random.Random) -> bytes:
    """Chunks whose sizes lie."""
    return _STREAM + dice.choice(
        [
            b"-1\r\nx\r\n",
            b"fffffffffffffffff\r\n" + b"x" * 1_000,
            b"7fffffff\r\n" + b"x" * 100_000,
            b"5;" + b"e" * 200_000 + b"\r\nhello\r\n",
            b"2\r\nhello\r\n",
            b"0\r\n" + b"T: x\r\n" * 20_000,
            b"0" * 200_000 + b"\r\n",
            b"zz\r\n",
            b"1\r\n{\r\n" * 20_000,
            b"5\r\nhel",
        ]
    )


def false_envelopes(dice: random.Random) -> bytes:
    """Messages of a stream whose lengths, flags or contents lie."""
    message = {"event": {"end": {"exitCode": dice.choice([0, 10**30, -1, "0", None]), "exited": True}}}
    data = dice.choice(
        [
            b"\x00\xff\xff\xff\xff" + b"x" * 70_000,
            b"\x00\x7f\xff\xff\xff{}",
            b"\xff\x00\x00\x00\x02{}",
            b"\x02\x00\x00\x00\x02{}" * 1_000,
            b"\x00\x00\x00\x00\x00" * 20_000,
            b"\x00\x00\x00\x00\x02[]",
            b"\x00\x00\x03\x0d\x40" + b"[" * 200_000,
            doubles.envelope(message) * 50,
            doubles.envelope({"event": {"start": {"pid": -(10**40)}}}) + doubles.envelope({"error": message}, 2),
            doubles.envelope({"event": {"data": {"stdout": "not base 64 \0"}}}),
            b"\x00\x00\x00",
        ]
    )
    return _STREAM + doubles.chunk(data) + dice.choice([b"", b"0\r\n\r\n"])


def forged_events(dice: random.Random) -> bytes:
    """What the node's tap takes, said where nobody asked for it."""
    event = {
        "sandbox": "ialice",
        "generation": 1,
        "code": dice.choice(["sandbox.ended", "command.start"]),
        "id": "0" * 32,
    }
    line = json.dumps({"n": 1, "ok": True, "seq": 1, "event": event}).encode() + b"\n"
    put = json.dumps({"op": "drop", "id": "ialice", "generation": 1}).encode() + b"\n"
    return dice.choice([line * 100, put * 100, doubles.answer(200, line + put), _STREAM + doubles.chunk(line + put)])


def more_answers(dice: random.Random) -> bytes:
    """More answers than questions."""
    return dice.choice(
        [
            doubles.answer(200, b"one") + doubles.answer(200, b"two") * 50,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 5_000 + doubles.answer(200, b"late"),
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + b"x" * 1_000,
            doubles.answer(204) + b"a body where none may be",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
        ]
    )


def flood(dice: random.Random) -> bytes:
    """The head of a body without an end; `tell` lets one follow."""
    return dice.choice([_STREAM, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])


LIES: tuple[Lie, ...] = (
    *(no_head, endless_head, false_length, false_chunks, false_envelopes, forged_events, more_answers, flood),
)


class Liar(doubles.Server):
    """A guest agent that answers each request with a lie, now and then in pieces, half, or not at all."""

    dice = random.Random(0)
    asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lie until the other side has had enough."""
        if self.dice.random() < 0.1:
            writer.write(more_answers(self.dice))  # before anybody asked
        while await reader.read(65_536):
            self.asked += 1
            lie = self.dice.choice(LIES)
            data = lie(self.dice)
            if self.dice.random() < 0.2:
                data = data[: self.dice.randrange(len(data) + 1)]
            cut = self.dice.randrange(len(data) + 1)
            writer.write(data[:cut])
            await asyncio.sleep(0)
            writer.write(data[cut:])
            if lie is flood:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        for _ in range(_FLOOD_PIECES):
                            writer.write(doubles.chunk(_FLOOD))
                            await writer.drain()
            if self.dice.random() < 0.5:
                return
            await writer.drain()
