"""Open streams end within a second of the right they were opened with, and look like a kill to the SDK."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, BOB_KEY, Place, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMAND = {"process": {"cmd": "sleep", "args": ["600"]}}
NOT_FOUND = {"sandboxId": ALICE, "message": "The sandbox was not found", "code": 502}


@pytest.fixture
def endless(place: Place) -> None:
    """Let commands send one event and then nothing for ever."""

    async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_body(reader, request)
        writer.write(doubles.STREAM_HEAD + doubles.chunk(doubles.envelope({"event": {"start": {"pid": 1}}})))
        await reader.read()

    place.guest.on("POST", "/process.Process/Start", start)


async def cut_after(response: aiohttp.ClientResponse, seconds: float) -> None:
    """Expect that a stream is cut, not ended, within so many seconds."""
    began = time.monotonic()
    with pytest.raises(aiohttp.ClientError):
        await response.read()
    assert time.monotonic() - began < seconds


async def probe(place: Place) -> tuple[int, object]:
    """Ask for the sandbox's health as the SDK does after a lost stream."""
    async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
        return response.status, await response.json(content_type=None) if response.status != 204 else None


async def test_a_killed_sandbox_ends_its_streams_and_is_not_found(place: Place, endless: None) -> None:
    async with place.start(COMMAND) as response:
        await response.content.readany()
        place.edge.drop(ALICE)
        await cut_after(response, 1.0)

    assert await probe(place) == (502, NOT_FOUND)
    await until(lambda: place.tap.of("command.start", "result"))
    (result,) = place.tap.of("command.start", "result")
    assert (result["outcome"], result["details"]["reason"]) == ("error", "sandbox_gone")


async def test_a_kill_before_the_answer_is_not_found(place: Place) -> None:
    asked = asyncio.Event()

    async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    place.guest.on("POST", "/process.Process/Start", start)
    call = asyncio.ensure_future(place.start(COMMAND))
    await asked.wait()
    place.edge.drop(ALICE)

    async with await call as response:
        assert response.status == 502
        assert await response.json(content_type=None) == NOT_FOUND


async def test_a_dead_guest_cuts_the_stream(place: Place, endless: None) -> None:
    async with place.start(COMMAND) as response:
        await response.content.readany()
        await place.guest.stop()
        await cut_after(response, 1.0)

    assert await probe(place) == (502, NOT_FOUND)


async def test_a_revoked_key_loses_its_streams_and_no_other(place: Place, endless: None) -> None:
    place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: None, BOB_KEY: None}))
    await until(lambda: BOB_KEY in place.gateway.services.table.get(ALICE).grants)  # type: ignore[union-attr]
    bobs_token = doubles.token(ALICE, BOB_KEY)
    async with place.start(COMMAND) as alices, place.start(COMMAND, token=bobs_token) as bobs:
        await alices.content.readany()
        await bobs.content.readany()
        place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: None}))
        await cut_after(bobs, 1.0)

        assert not alices.content.is_eof()
        assert alices.connection is not None
    async with place.rpc("process.Process/List", {}, token=bobs_token) as response:
        assert response.status == 401
    await until(lambda: len(place.tap.of("command.start", "result")) == 2)
    assert [one["details"]["reason"] for one in place.tap.of("command.start", "result")] == [
        "access_revoked",
        "client_left",
    ]


async def test_a_stream_ends_when_its_grant_expires(place: Place, endless: None) -> None:
    async with place.start(COMMAND) as response:
        await response.content.readany()
        soon = time.time_ns() // 1_000_000 + 200
        place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: soon}))
        await cut_after(response, 1.2)


async def test_a_new_generation_ends_the_streams_of_the_old(place: Place, endless: None) -> None:
    async with place.start(COMMAND) as response:
        await response.content.readany()
        place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: None}, generation=2))
        await cut_after(response, 1.0)

    async with place.rpc("process.Process/List", {}) as refused:
        assert refused.status == 401


async def test_a_kill_ends_an_upload(place: Place) -> None:
    async def upload(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    place.guest.on("POST", "/files", upload)
    blocked = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        await blocked.wait()

    call = asyncio.ensure_future(
        place.http.post(
            f"{place.url}/files?path=/a",
            data=body(),
            headers=place.headers(Content_Type="application/octet-stream"),
        )
    )
    await until(lambda: place.guest.calls("POST", "/files"))
    place.edge.drop(ALICE)

    async with await call as response:
        assert response.status == 502
        assert await response.json(content_type=None) == NOT_FOUND
    blocked.set()


async def test_a_client_that_leaves_closes_the_way_to_the_guest(place: Place) -> None:
    left = asyncio.Event()

    async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_body(reader, request)
        writer.write(doubles.STREAM_HEAD + doubles.chunk(doubles.envelope({"event": {"start": {"pid": 1}}})))
        await reader.read()
        left.set()

    place.guest.on("POST", "/process.Process/Start", start)
    async with place.start(COMMAND) as response:
        await response.content.readany()
        response.close()

    async with asyncio.timeout(1):
        await left.wait()
    await until(lambda: place.tap.of("command.start", "result"))
    (result,) = place.tap.of("command.start", "result")
    assert (result["outcome"], result["details"]["reason"]) == ("ok", "client_left")


async def test_a_client_that_does_not_read_can_be_cut(place: Place) -> None:
    async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_body(reader, request)
        writer.write(doubles.STREAM_HEAD)
        while True:
            writer.write(doubles.chunk(b"x" * 65536))
            await writer.drain()

    place.guest.on("POST", "/process.Process/Start", start)
    async with place.start(COMMAND) as response:
        await asyncio.sleep(0.2)
        place.edge.drop(ALICE)
        await cut_after(response, 2.0)
    await until(lambda: place.tap.of("command.start", "result"))
