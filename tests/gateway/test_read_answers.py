"""Answers are read strictly: what is not exact HTTP/1.1 is an error, and nothing is unbounded."""

from __future__ import annotations

import pytest

from sandboxes.gateway.http1 import BadAnswer, ChunkedDecoder, end_to_end, parse_head, render_head


def test_it_reads_a_head() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length:  12 ", method="GET")

    assert head.status == 200
    assert head.fields == [(b"Content-Type", b"a/b"), (b"Content-Length", b"12")]
    assert (head.length, head.chunked, head.keep_alive) == (12, False, True)


@pytest.mark.parametrize(
    ("block", "method", "length", "chunked", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", "GET", None, True, True),
        (b"HTTP/1.1 200 OK", "GET", None, False, False),
        (b"HTTP/1.1 204 No Content", "GET", 0, False, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9", "GET", 0, False, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9", "HEAD", 0, False, True),
        (b"HTTP/1.1 200 OK", "CONNECT", 0, False, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9", "GET", 9, False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: Close", "GET", 9, False, False),
        (b"HTTP/1.1 200\r\nContent-Length: 9", "GET", 9, False, True),
    ],
)
def test_it_knows_where_the_body_ends(
    block: bytes, method: str, length: int | None, chunked: object, keep_alive: object
) -> None:
    head = parse_head(block, method=method)

    assert (head.length, head.chunked, head.keep_alive) == (length, chunked, keep_alive)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 099 X",
        b"HTTP/1.1 2000 X",
        b"HTTP/1.1  200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1 200 OK\nX: y",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\n: no name",
        b"HTTP/1.1 200 OK\r\nspace : x",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded",
        b"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c",
        b"HTTP/1.1 200 OK\r\nA: b\nSet-Cookie: c",
        b"HTTP/1.1 200 OK\r\nA: \x00",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999",
        b"HTTP/1.1 200 OK\r\nContent-Length:",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK" + b"\r\nA: b" * 129,
    ],
)
def test_it_refuses_a_head_that_is_not_exact(block: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_head(block, method="GET")


def decode(data: bytes, step: int) -> tuple[bytes, bytes, bool]:
    """Decode a chunked body that comes in pieces of `step` bytes; return body, surplus, finished."""
    decoder = ChunkedDecoder()
    pieces: list[bytes] = []
    surplus = b""
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        if decoder.finished:
            surplus += piece
            continue
        while piece:
            piece = decoder.feed(piece, pieces)
            if decoder.finished:
                surplus += piece
                break
    return b"".join(pieces), surplus, decoder.finished


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_it_decodes_chunks_however_they_are_cut(step: int) -> None:
    data = b"5\r\nhello\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1 200"

    assert decode(data, step) == (b"hello0123456789", b"HTTP/1.1 200", True)


def test_it_gives_way_after_many_small_chunks() -> None:
    decoder = ChunkedDecoder()
    pieces: list[bytes] = []

    rest = decoder.feed(b"1\r\nx\r\n" * 5000, pieces)

    assert len(pieces) == 1024
    assert rest == b"1\r\nx\r\n" * (5000 - 1024)


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na",
        b" 1\r\na",
        b"0x1\r\na",
        b"1\na\n\r\n",
        b"FFFFFFFFFFFFFFFFFF\r\n",
        b"1\r\nab\r\n",
        b"1\r\na0\r\n\r\n",
        b"1;" + b"x" * 300 + b"\r\n",
        b"0" * 9000,
        b"0\r\n" + b"A: b\r\n" * 3000,
    ],
)
def test_it_refuses_bad_chunks(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        decode(data, 100_000)


def test_it_drops_what_belongs_to_one_hop() -> None:
    fields = [
        (b"Connection", b"keep-alive, X-Named"),
        (b"X-Named", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"TE", b"trailers"),
        (b"Content-Length", b"3"),
        (b"Upgrade", b"h2c"),
        (b"Proxy-Authorization", b"x"),
        (b"Cookie", b"a=b"),
        (b"X-Kept", b"2"),
    ]

    assert end_to_end(fields, frozenset({b"cookie"})) == [(b"X-Kept", b"2")]


def test_it_renders_a_head() -> None:
    assert render_head(b"GET / HTTP/1.1", [(b"A", b"b")]) == b"GET / HTTP/1.1\r\nA: b\r\n\r\n"
