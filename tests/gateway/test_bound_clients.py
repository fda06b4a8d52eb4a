"""What a client may use is bounded: heads, messages, connections, time. Uploads are not."""

from __future__ import annotations

import asyncio
import time

import pytest

from sandboxes.gateway.settings import Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, Place, read_answer, request_bytes, until

START = "POST /process.Process/Start HTTP/1.1"


@pytest.fixture
def limits() -> Limits:
    """Small limits, so that tests meet them."""
    return Limits(
        drain_seconds=0.2,
        header_seconds=0.3,
        message_seconds=0.3,
        message=10_000,
        idle_seconds=0.5,
        client_connections=20,
        intent_seconds=0.5,
    )


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """Read until the gateway closes; a reset is an end too."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_connections_outlive_the_pools_of_clients_and_proxies() -> None:
    usual = Limits()

    assert usual.keepalive_seconds >= 640  # clients keep theirs for 300 s, proxies for 620 s
    assert usual.idle_seconds >= 600


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n"])
async def test_a_head_must_come_in_time(place: Place, start: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(start)
    began = time.monotonic()

    assert await end_of(reader) == b""

    assert 0.2 < time.monotonic() - began < 2
    writer.close()


async def test_a_second_head_must_come_in_time_too(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(request_bytes("GET / HTTP/1.1"))
    assert (await read_answer(reader))[0] == 200
    await asyncio.sleep(0.4)
    writer.write(request_bytes("GET / HTTP/1.1"))
    assert (await read_answer(reader))[0] == 200

    writer.write(b"GET / HTTP/1.1\r\nHost: x")

    assert await end_of(reader) == b""
    writer.close()


async def test_a_drip_does_not_extend_the_time(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(b"GET / HTTP/1.1\r\n")
    began = time.monotonic()

    async def drip() -> None:
        while True:
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(drip())
    assert await end_of(reader) == b""
    dripping.cancel()
    assert time.monotonic() - began < 2
    writer.close()


@pytest.mark.parametrize(
    "data",
    [
        request_bytes("GET /" + "x" * 20_000 + " HTTP/1.1"),
        request_bytes("GET / HTTP/1.1", X="y" * 20_000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
    ],
    ids=[
        "long target",
        "long field",
        "many fields",
        "no host",
        "two hosts",
        "space in a name",
        "folded",
        "length and chunks",
        "two lengths",
        "odd coding",
        "negative length",
        "TLS",
        "nonsense",
    ],
)
async def test_a_request_that_is_not_http_is_refused_and_the_connection_closed(place: Place, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(data)

    status, fields, body = await read_answer(reader)

    assert status == 400
    assert body in ({"message": "The request is not valid HTTP", "code": 400}, b"The Host header is not valid\n")
    assert fields["connection"] == "close"
    assert await end_of(reader) == b""
    assert place.web.requests == []
    writer.close()


@pytest.mark.parametrize("target", ["http://localhost/", "localhost:80", "*"])
async def test_only_paths_are_targets(place: Place, target: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(request_bytes(f"GET {target} HTTP/1.1"))

    assert (await read_answer(reader))[0] == 400
    assert place.web.requests == []
    writer.close()


async def test_connect_is_not_a_way_in(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n")

    assert (await read_answer(reader))[0] == 400
    assert place.guest.requests == place.web.requests == []
    writer.close()


async def test_one_head_missing_of_two_is_plain_text(place: Place) -> None:
    status, fields, body = await place.raw("GET / HTTP/1.1", E2b_Sandbox_Id="ialice")

    assert (status, body) == (400, b"The header E2b-Sandbox-Port is missing\n")
    assert fields["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_message_is_only_so_long(place: Place, chunked: object) -> None:
    body = doubles.envelope({"process": {"cmd": "x" * 20_000}})
    framing = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": str(len(body))}
    data = doubles.chunk(body) + b"0\r\n\r\n" if chunked else body

    status, _, answer = await place.raw(
        START, data, **place.headers(Content_Type="application/connect+json", **framing)
    )

    assert (status, answer) == (413, {"code": "resource_exhausted", "message": "the message is too large"})
    assert place.guest.requests == []
    assert place.tap.events == []


async def test_a_message_must_come_in_time(place: Place) -> None:
    status, _, answer = await place.raw(
        START, b"\x00\x00", **place.headers(Content_Type="application/connect+json", Content_Length="50")
    )

    assert (status, answer["message"]) == (408, "The request's body did not come in time")
    assert place.guest.requests == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request has no message"),
        (b"\x00\x00\x00\x00", "the request has no message"),
        (b"\x01\x00\x00\x00\x02{}", "compressed messages are not supported"),
        (b"\x00\x00\x00\x00\x05{}", "the request must be exactly one message"),
        (doubles.envelope({}) * 2, "the request must be exactly one message"),
        (b"\x00\x00\x00\x00\x02[]", "the message is not a JSON object"),
    ],
)
async def test_a_bad_envelope_is_refused_inside_the_stream(place: Place, body: bytes, message: str) -> None:
    status, fields, answer = await place.raw(
        START, body, **place.headers(Content_Type="application/connect+json", Content_Length=str(len(body)))
    )

    assert (status, fields["content-type"]) == (200, "application/connect+json")
    assert answer == doubles.envelope({"error": {"code": "invalid_argument", "message": message}}, 2)
    assert place.guest.requests == []


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content_Type": "application/json"}, "the content type must be application/connect+json"),
        ({"Content_Type": "application/connect+proto"}, "the content type must be application/connect+json"),
        ({}, "the content type must be application/connect+json"),
        (
            {"Content_Type": "application/connect+json", "Connect_Content_Encoding": "gzip"},
            "compressed messages are not supported",
        ),
    ],
)
async def test_what_nobody_could_judge_is_refused(place: Place, headers: dict[str, str], message: str) -> None:
    body = doubles.envelope({"process": {"cmd": "x"}})

    status, _, answer = await place.raw(START, body, **place.headers(Content_Length=str(len(body)), **headers))

    assert (status, answer["message"]) == (415, message)
    assert place.guest.requests == []


async def test_a_silent_upload_is_cut(place: Place) -> None:
    place.guest.on("POST", "/files", doubles.answer(200))
    headers = place.headers(Content_Type="application/octet-stream", Content_Length="100000")

    status, _, _ = await place.raw("POST /files?path=/a HTTP/1.1", b"x" * 10, **headers)

    assert status == 408


async def test_above_the_limit_idle_clients_make_room(place: Place) -> None:
    clients = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(25)]
    ends = [asyncio.ensure_future(end_of(reader)) for reader, _ in clients]
    await until(lambda: sum(one.done() for one in ends) == 5)

    assert [one.done() for one in ends] == [True] * 5 + [False] * 20
    assert (await place.raw("GET / HTTP/1.1"))[0] == 200
    for _, writer in clients:
        writer.close()
    await asyncio.gather(*ends)


async def test_above_the_limit_busy_clients_stay(place: Place) -> None:
    place.tap.silent = True
    body = doubles.envelope({"process": {"cmd": "x"}})
    headers = place.headers(Content_Type="application/connect+json", Content_Length=str(len(body)))
    waiting = [asyncio.ensure_future(place.raw(START, body, **headers)) for _ in range(20)]
    await until(lambda: len(place.gateway.services.table.get(ALICE).streams) == 20)  # type: ignore[union-attr]

    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    assert await end_of(reader) == b""
    writer.close()
    assert {status for status, _, _ in await asyncio.gather(*waiting)} == {503}


async def test_requests_may_be_pipelined(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(b"".join(request_bytes(f"GET /{number} HTTP/1.1") for number in range(40)))

    targets = [(await read_answer(reader))[2]["target"] for _ in range(40)]

    assert targets == [f"/{number}" for number in range(40)]
    writer.close()


async def test_an_old_client_gets_an_answer_that_ends_with_the_connection(place: Place) -> None:
    place.guest.on("GET", "/metrics", doubles.STREAM_HEAD + doubles.chunk(b"{}") + b"0\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(request_bytes("GET /metrics HTTP/1.0", **place.headers()))

    answer = await reader.read()

    assert answer.endswith(b"\r\n\r\n{}")
    assert b"Transfer-Encoding" not in answer
    assert b"Connection: close" in answer
    writer.close()
