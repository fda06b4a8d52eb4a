"""Kinds of garbage for the node's doors. Each makes one piece from a seeded die; none of it is a whole, right call."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Kind = Callable[[random.Random], bytes]

_TARGETS = (
    *("/v1/health", "/v1/sandboxes", "/v1/sandboxes/x", "/v1/sandboxes/x/pause", "/v1/events", "/v1/routes", "/", "*"),
    *("/v1/sandboxes/" + "%2e%2e%2f" * 20, "/v1/sandboxes/%00", "/v1//", "//v1/health", "/v1/sandboxes/x/samples?a=%"),
)
_VERBS = ("GET", "POST", "PUT", "DELETE", "PATCH", "CONNECT", "OPTIONS", "TRACE", "BREW")
# Wrong in one way or another for most fields that there are.
WRONG: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1.5, 2**63, 10**400, float("nan"), float("inf")),
    *("", "x", "x" * 10_000, "\0", "\ud800", "../../etc/passwd", "a\nb", "$(id)", "\uff41", "\u202e"),
    *([], [None], [[[[]]]], ["x"] * 1_000, {}, {"a": {}}, {"": None}, {"\0": "\0"}, {"x" * 5_000: 1}),
)


def noise(dice: random.Random) -> bytes:
    """Bytes without a meaning."""
    return dice.randbytes(dice.choice([1, 7, 100, 5_000, 70_000]))


def bad_line(dice: random.Random) -> bytes:
    """A request line that is none."""
    target, verb = dice.choice(_TARGETS), dice.choice(["get", "G\0T", "", "GET\t", "G" * 9_000])
    return dice.choice(
        [
            f"GET {target}\r\n\r\n",
            f"GET  {target} HTTP/1.1\r\n\r\n",
            f"GET {target} HTTP/{dice.choice(['0.9', '1.2', '2.0', '3', 'x', '1.1.1'])}\r\n\r\n",
            f"{verb} {target} HTTP/1.1\r\n\r\n",
            f"GET {target}\0 HTTP/1.1\r\nHost: node\r\n\r\n",
            f"GET /{'a' * dice.choice([9_000, 100_000])} HTTP/1.1\r\nHost: node\r\n\r\n",
            f"GET http://node{target} HTTP/1.1\r\nHost: node\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\r\n" * dice.randrange(1, 1_000),
        ]
    ).encode("latin-1")


def bad_fields(dice: random.Random) -> bytes:
    """Header fields that are none, or that contradict each other."""
    fields = dice.choice(
        [
            "Content-Length: -1",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: " + "9" * 30,
            "Content-Length: 0x10",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: \x0bchunked",
            "Content-Encoding: gzip\r\nContent-Length: 4",
            "Content-Encoding: br\r\nContent-Length: 4",
            "X: a\0b",
            "X: a\r\n folded",
            "X : y",
            ": y",
            "no colon",
            "Expect: 100-continue\r\nContent-Length: 10",
            "Expect: the unexpected\r\nContent-Length: 10",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
        ]
    )
    verb, target = dice.choice(_VERBS), dice.choice(_TARGETS)
    return f"{verb} {target} HTTP/1.1\r\nHost: node\r\n{fields}\r\n\r\n".encode("latin-1") + dice.randbytes(8)


def endless_head(dice: random.Random) -> bytes:
    """A head that does not come to its end."""
    return b"POST /v1/sandboxes HTTP/1.1\r\nHost: node\r\n" + dice.choice(
        [b"X: y\r\n" * 20_000, b"X: " + b"y" * 300_000, b"X" * 300_000, b"Cookie: " + b"a=b; " * 40_000]
    )


def bad_chunks(dice: random.Random) -> bytes:
    """A body in chunks whose sizes lie."""
    head = b"POST /v1/sandboxes HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + dice.choice(
        [
            b"5\r\nab",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"zz\r\n",
            b"fffffffffffffffff\r\nx\r\n",
            b"5;" + b"x" * 100_000 + b"\r\nhello\r\n",
            b"2\r\nhello\r\n0\r\n\r\n",
            b"0\r\n" + b"T: x\r\n" * 10_000,
            b"1\r\n[\r\n" * 30_000,
            b"0" * 100_000,
        ]
    )


def bad_body(dice: random.Random) -> bytes:
    """A body that is no JSON object, or that is not as long as it says."""
    body = dice.choice(
        [
            b"[" * 200_000,
            b'{"a":' * 100_000,
            b"9" * 100_000,
            b'{"generation":' + b"9" * 5_000 + b"}",
            b'{"id":"' + b"x" * 900_000 + b'"}',
            b'{"id":"' + b"x" * 1_500_000 + b'"}',
            b"{" + b",".join(b'"k%d":%d' % (number, number) for number in range(50_000)) + b"}",
            b'{"generation":1,"generation":[]}',
            b'\xff\xfe{"',
            b'"\\ud800"',
            b"NaN",
            b"",
            json.dumps(dice.choice(WRONG)).encode(),
        ]
    )
    length = len(body) + dice.choice([0, 0, 0, 1, 100, -1])
    target = dice.choice(["/v1/sandboxes", "/v1/sandboxes/x/deadline", "/v1/sandboxes/x/resume", "/v1/events/ack"])
    return f"POST {target} HTTP/1.1\r\nHost: node\r\nContent-Length: {max(0, length)}\r\n\r\n".encode() + body


KINDS: tuple[Kind, ...] = (noise, bad_line, bad_fields, endless_head, bad_chunks, bad_body)


# --- Lines for the tap


def tap_noise(dice: random.Random) -> bytes:
    """Lines without a meaning."""
    return dice.choice(
        [
            dice.randbytes(dice.choice([10, 1_000, 60_000])).replace(b"\n", b"") + b"\n",
            b"\n" * dice.randrange(1, 2_000),
            b"{" * 60_000 + b"\n",
            b'{"n":' + b"9" * 5_000 + b"}\n",
            b'{"n":1,"event":' + b"[" * 20_000 + b"\n",
            b"GET /v1/health HTTP/1.1\r\nHost: node\r\n\r\n",
        ]
    )


def tap_forgery(dice: random.Random, event: dict[str, Any]) -> bytes:
    """An event of the gateway's in which a field is another one than may be."""
    forged = dict(event)
    for name in dice.sample(sorted(forged), dice.randrange(1, 4)):
        forged[name] = dice.choice(WRONG)
    forged["code"] = dice.choice(["sandbox.ended", "sandbox.paused", "spool.overflow", "limit.memory", "x.y", ""])
    return json.dumps({"n": dice.choice([1, -1, 2**70, dice.randrange(10**6)]), "event": forged}).encode() + b"\n"


def tap_flood(dice: random.Random) -> bytes:
    """A line without an end."""
    return b'{"n":1,"event":{"details":"' + b"x" * dice.choice([70_000, 500_000, 2_000_000])
