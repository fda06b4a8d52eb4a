"""A guest that lies on the wire harms its own answer and nothing else."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from sandboxes.gateway.envelopes import Ending
from tests.gateway import doubles
from tests.gateway.place import ALICE, Place, read_answer, request_bytes, until

COMMAND = {"process": {"cmd": "/bin/true"}}
START = "/process.Process/Start"
HEAD = b"HTTP/1.1 200 OK\r\n"
BAD_ANSWER = {
    "sandboxId": ALICE,
    "message": "The sandbox is running but its answer is not valid HTTP",
    "port": 49983,
    "code": 502,
}


@pytest.mark.parametrize(
    "lie",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: y\n\n\r\n\r\n",
        HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        HEAD + b"X: y\r\n" * 200 + b"\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://evil.example\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        HEAD + b"A: b\r\nSet-Cookie: x\ry\r\n\r\n",
    ],
)
async def test_a_malformed_head_is_a_502(place: Place, lie: bytes) -> None:
    place.guest.on("POST", START, lie)

    async with place.start(COMMAND) as response:
        assert response.status == 502
        assert await response.json(content_type=None) == BAD_ANSWER
    async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
        assert response.status == 204
    await until(lambda: place.tap.of("command.start", "result"))
    assert place.tap.of("command.start", "result")[0]["details"]["reason"] == "guest_answer_malformed"


async def test_a_hang_up_without_an_answer_is_a_502(place: Place) -> None:
    async def hang_up(*_: object) -> bool:
        return False

    place.guest.on("POST", START, hang_up)
    async with place.start(COMMAND) as response:
        assert response.status == 502
        assert await response.json(content_type=None) == {
            "sandboxId": ALICE,
            "message": "The sandbox is running but port is not open",
            "port": 49983,
            "code": 502,
        }


@pytest.mark.parametrize(
    ("truth", "lie"),
    [
        (HEAD + b"Content-Length: 50\r\n\r\nhello", b""),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b""),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"ZZ\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello", b"XX"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"0\r\n" + b"A: b\r\n" * 5000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFF\r\nhello", b""),
    ],
)
async def test_a_false_length_cuts_the_answer(place: Place, truth: bytes, lie: bytes) -> None:
    proceed = asyncio.Event()

    async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await doubles.read_body(reader, request)
        writer.write(truth)
        await proceed.wait()
        writer.write(lie)
        await writer.drain()
        return False

    place.guest.on("POST", START, start)
    async with place.start(COMMAND) as response:
        assert response.status == 200
        assert await response.content.readany() == b"hello"
        proceed.set()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    await until(lambda: place.tap.of("command.start", "result"))
    assert place.tap.of("command.start", "result")[0]["outcome"] == "error"


async def test_a_lie_right_after_the_head_is_a_502(place: Place) -> None:
    place.guest.on("POST", START, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX")

    async with place.start(COMMAND) as response:
        assert response.status == 502
        assert await response.json(content_type=None) == BAD_ANSWER


async def test_a_smuggled_second_answer_reaches_nobody(place: Place) -> None:
    place.guest.on("POST", START, doubles.answer(200, b"first") + doubles.answer(200, b"smuggled"))
    async with place.start(COMMAND) as response:
        assert await response.read() == b"first"

    async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
        assert response.status == 204
        assert await response.read() == b""
    assert place.guest.connections == 2


async def test_an_answer_between_requests_closes_the_connection(place: Place) -> None:
    async def health(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(doubles.answer(204))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(doubles.answer(200, b"unasked"))

    place.guest.on("GET", "/health", health)
    for _ in range(2):
        async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
            assert response.status == 204
        await asyncio.sleep(0.1)
    assert place.guest.connections == 2


async def test_a_body_where_none_may_be_is_dropped(place: Place) -> None:
    place.guest.on("GET", "/health", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")

    for _ in range(2):
        async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
            assert (response.status, await response.read()) == (204, b"")


async def test_a_head_that_drips_for_ever_is_cut(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxes.gateway.upstream.HEAD_SECONDS", 0.2)

    async def drip(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)

    place.guest.on("GET", "/health", drip)
    async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
        assert response.status == 502


async def test_tiny_chunks_do_not_stop_others(place: Place) -> None:
    async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_body(reader, request)
        writer.write(doubles.STREAM_HEAD)
        for _ in range(40):
            writer.write(b"1\r\nx\r\n" * 5000)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    place.guest.on("POST", START, start)
    answered = 0
    async with place.start(COMMAND) as response:
        reading = asyncio.ensure_future(response.read())
        while not reading.done():
            async with place.http.get(f"{place.url}/health", headers=place.headers()) as health:
                assert health.status == 204
            answered += 1
        assert await reading == b"x" * 200_000
    assert answered >= 5


async def test_one_client_connection_survives_every_lie(place: Place) -> None:
    """The answers that the gateway makes itself keep the framing of the client's connection."""
    place.guest.on("POST", START, b"nonsense\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    body = doubles.envelope(COMMAND)
    for _ in range(3):
        writer.write(
            request_bytes(
                f"POST {START} HTTP/1.1",
                body,
                **place.headers(Content_Type="application/connect+json", Content_Length=str(len(body))),
            )
        )
        status, _, answer = await read_answer(reader)
        assert (status, answer) == (502, BAD_ANSWER)
    writer.close()


def test_what_a_stream_says_about_its_end_is_read_from_its_last_bytes() -> None:
    ending = Ending()
    stream = (
        doubles.envelope({"event": {"start": {"pid": 5}}})
        + doubles.envelope({"event": {"data": {"stdout": "x" * 100_000}}})
        + doubles.envelope({"event": {"end": {"exitCode": -1, "status": "signal: killed"}}})
        + doubles.envelope({"error": {"code": "deadline_exceeded"}}, 2)
    )
    for at in range(0, len(stream), 1000):
        ending.observe(stream[at : at + 1000])

    assert ending.facts() == {
        "pid": 5,
        "exit_code": -1,
        "status": "signal: killed",
        "error_code": "deadline_exceeded",
        "ended": True,
    }


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\x02",
        b"\x00" * 10_000,
        b"\x02\x00\x00\x00\x01[",
        doubles.envelope([1]),
        doubles.envelope({"event": []}) + doubles.envelope([], 2),
        doubles.envelope({"event": {"start": {"pid": "5"}}}),
        b"\x00\x00\x00\xff\xff" + b"[" * 65535 + doubles.envelope({}, 2),
    ],
)
def test_what_a_stream_can_not_say_is_left_out(stream: bytes) -> None:
    ending = Ending()
    ending.observe(stream)

    assert "pid" not in ending.facts()
    assert "exit_code" not in ending.facts()
