"""Kinds of garbage for the public port. Each makes one piece from a seeded die.

What is malformed by construction names `/bad` in its target; what breaks in its body asks for `/cut`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.gateway import doubles
from tests.gateway.place import MALLORY, MALLORY_KEY, request_bytes

Kind = Callable[[random.Random], bytes]

PORT = f"8080-{MALLORY}.sbx.example"
AGENT = f"49983-{MALLORY}.sbx.example"
TOKEN = doubles.token(MALLORY, MALLORY_KEY)
HOSTS = (PORT, AGENT, "localhost", "sandbox.sbx.example", f"49999-{MALLORY}.sbx.example", "8080-inobody.x")
_METHODS = ("get", "G\0T", "FROB", "GET\t", "")
_NO_HOSTS = ("", "a b", "a/b", "[::1", "x" * 400, "u@h", "h:99999")


# --- requests that are malformed by construction


def smuggled(dice: random.Random) -> bytes:
    """Two readers would see different ends."""
    length = dice.choice(["0", "3", "5", "44", "+5", "-1", "0x5", "5, 5", "5;", "1e1", "٣", "9" * 30, "", " ", "5\t6"])
    coding = dice.choice(
        [
            "chunked",
            "CHUNKED",
            "xchunked",
            "chunked, identity",
            "gzip, chunked",
            "\x0bchunked",
            "chunked\x00",
            '"chunked"',
        ]
    )
    name = dice.choice(["Transfer-Encoding", "Transfer-Encoding ", "Transfer_Encoding\x01", " Transfer-Encoding"])
    fields = [f"Content-Length: {length}", f"{name}: {coding}"]
    dice.shuffle(fields)
    inner = f"GET /bad-inner HTTP/1.1\r\nHost: {PORT}\r\n\r\n"
    head = "\r\n".join(["POST /bad HTTP/1.1", f"Host: {dice.choice(HOSTS)}", *fields, "", ""])
    return (head + dice.choice(["0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "", "3\r\n"]) + inner).encode()


def bad_head(dice: random.Random) -> bytes:
    """A head that is no head."""
    host = dice.choice(HOSTS)
    return dice.choice(
        [
            f"GET /bad HTTP/1.1\nHost: {host}\n\n",
            f"GET /bad HTTP/1.1\r\nHost: {host}\r\nX: a\r\n folded\r\n\r\n",
            f"GET /bad HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n",
            f"GET /bad HTTP/1.1\r\nHost: {host}\r\nX: a\rb\r\n\r\n",
            f"GET /bad\0 HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"GET /bad /x HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"GET /bad#x HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"GET bad HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"GET http://{host}/bad HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"CONNECT bad:8080 HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"GET /bad HTTP/{dice.choice(['0.9', '1.2', '2.0', '11', 'x'])}\r\nHost: {host}\r\n\r\n",
            f"GET /bad HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n",
            f"GET /bad HTTP/1.1\r\nHost: {dice.choice(_NO_HOSTS)}\r\n\r\n",
            "GET /bad HTTP/1.1\r\n\r\n",
            f"{dice.choice(_METHODS)} /bad HTTP/1.1\r\nHost: {host}\r\n\r\n",
            f"GET /bad HTTP/1.1\r\nHost: localhost\r\nE2b-Sandbox-Id: {MALLORY}\r\n\r\n",
            "GET /bad HTTP/1.1\r\nHost: localhost\r\nE2b-Sandbox-Id: ../x\r\nE2b-Sandbox-Port: 1\r\n\r\n",
            f"GET /bad HTTP/1.1\r\nHost: {dice.choice(['0', '70000', '00000000001'])}-{MALLORY}.x\r\n\r\n",
        ]
    ).encode("latin-1")


def endless_head(dice: random.Random) -> bytes:
    """A head that is too long."""
    return b"GET /bad HTTP/1.1\r\nHost: %b\r\n" % dice.choice(HOSTS).encode() + dice.choice(
        [b"X: y\r\n" * 5000, b"X: " + b"y" * 200_000, b"X" * 200_000, b"X: y\r\n" * 90 + b"\r\n"[:1] + b"Z" * 100_000]
    )


def long_target(dice: random.Random) -> bytes:
    """A target that is too long."""
    return b"GET /bad%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"x" * dice.randrange(17_000, 300_000), PORT.encode())


def other_protocol(dice: random.Random) -> bytes:
    """What never was HTTP/1.1."""
    return dice.choice(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(500),
            b"SSH-2.0-OpenSSH_9.2\r\n",
            dice.randbytes(dice.randrange(1, 5000)),
            b"\0" * 10_000,
            b"\r\n" * 50_000,
        ]
    )


def control_route(dice: random.Random) -> bytes:
    """The agent's own routes, in a spelling."""
    path = dice.choice(["/init", "//init", "/./init", "/%69nit", "/INIT", "/files/../upgrade", "/init/bad", "/fsthaw;"])
    return (
        f"POST {path}?/bad HTTP/1.1\r\nHost: {AGENT}\r\nX-Access-Token: {TOKEN}\r\nContent-Length: 0\r\n\r\n".encode()
    )


# --- requests that are sound so far and break later, or are merely strange


def bad_chunks(dice: random.Random) -> bytes:
    """A body that breaks in the middle: its head may have gone on, its end never."""
    size = dice.choice(["-1", "0x5", "zz", "f" * 20, "5 ;", "5\n", "", ";", "1" * 300])
    tail = dice.choice(["hello\r\n0\r\n\r\n", "helloXX0\r\n\r\n", "hello\r\n0\r\nTrailer\r\n\r\n", ""])
    head = f"POST /cut HTTP/1.1\r\nHost: {PORT}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    return f"{head}{size}\r\n{tail}".encode()


def half_body(dice: random.Random) -> bytes:
    """A body that ends too early."""
    host = dice.choice(HOSTS)
    length = dice.choice(["5", "70000", "9" * 15])
    return f"POST /cut HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\nab".encode()


def bad_envelope(dice: random.Random) -> bytes:
    """A message of the agent's protocol with a wrong length, flag or content."""
    name = dice.choice(["process.Process/Start", "process.Process/StreamInput", "filesystem.Filesystem/WatchDir"])
    data = doubles.envelope({"process": {"cmd": "x"}})
    body = dice.choice(
        [
            b"\0\xff\xff\xff\xff" + b"x" * 1000,
            b"\x02" + data[1:],
            b"\x01" + data[1:],
            data[:-1],
            data + b"x",
            data * 3,
            data[:4],
            b"",
            doubles.envelope([]),
            b"\0\0\1\0\0" + b"[" * 65_536,
            b"\0\0\0\0\x10" + b'{"a":1,"a":2,"b"',
            b"\0" + (5_000_000).to_bytes(4, "big") + b"x" * 100_000,
            dice.randbytes(300),
        ]
    )
    length = dice.choice([len(body), len(body), len(body) + 10])
    return request_bytes(
        f"POST /{name} HTTP/1.1",
        body,
        Host=AGENT,
        X_Access_Token=TOKEN,
        Content_Type=dice.choice(["application/connect+json", "application/json", "text/plain"]),
        Content_Length=str(length),
    )


def bad_parts(dice: random.Random) -> bytes:
    """An upload whose parts can't be followed."""
    body = dice.choice(
        [
            b"--b\r\n" + b"x" * 50_000,
            b"--b\r\n\r\n" * 2000,
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + b"a" * 20_000,
            dice.randbytes(2000),
        ]
    )
    kind = dice.choice(
        ["multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 99]
    )
    fields = {"Host": AGENT, "X_Access_Token": TOKEN, "Content_Type": kind, "Content_Length": str(len(body))}
    return request_bytes("POST /files HTTP/1.1", body, **fields)


def websocket_garbage(dice: random.Random) -> bytes:
    """An upgrade, and then no frames."""
    more = dice.choice(["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"])
    kind = dice.choice(["websocket", "websocket", "h2c", "tcp", "x, websocket"])
    head = f"GET /ws HTTP/1.1\r\nHost: {PORT}\r\nConnection: Upgrade\r\nUpgrade: {kind}\r\n{more}\r\n"
    return head.encode() + dice.randbytes(dice.choice([0, 10, 100_000]))


def pipeline(dice: random.Random) -> bytes:
    """Many requests at once, the last of them cut off."""
    one = request_bytes("GET /ok HTTP/1.1", Host=PORT)
    return one * dice.randrange(1, 200) + one[: dice.randrange(len(one))]


def bad_query(dice: random.Random) -> bytes:
    """A signed address that is none."""
    query = dice.choice(
        ["path=%ff", "signature=", "signature=v1_" + "x" * 99, "a=b&" * 100, "signature_expiration=" + "9" * 50]
    )
    return request_bytes(f"GET /files?{query}&signature=v1_bad HTTP/1.1", Host=dice.choice(["localhost", AGENT]))


def mutated(dice: random.Random) -> bytes:
    """A sound request with a few bytes changed."""
    data = bytearray(request_bytes("POST /ok?a=b HTTP/1.1", b"hello", Host=PORT, Content_Length="5", X_A="b"))
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(data))
        match dice.randrange(3):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at]
            case _:
                data[at:at] = dice.choice([b"\r\n", b"\0", b":", b" ", b"\xff", b"\r", b"\n"])
    return bytes(data)


MALFORMED: tuple[Kind, ...] = (smuggled, bad_head, endless_head, long_target, other_protocol, control_route)
STRANGE: tuple[Kind, ...] = (
    bad_chunks,
    half_body,
    bad_envelope,
    bad_parts,
    websocket_garbage,
    pipeline,
    bad_query,
    mutated,
)
