"""Answers and bodies pass as they come: at once, no faster than they are read, and not after who reads them is gone."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gatehouse.management.commands.serve import GRACE_S
from tenants import turns
from tenants.broker import actions, watching
from tenants.tokenmodels import TokenUse
from tests.broker.proxyplace import ALICE, BOB, Place, one_vendor, place, vendor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.vendor import Peer, Request

__all__ = ["one_vendor", "place", "vendor"]

pytestmark = pytest.mark.django_db(transaction=True)
MIB = 1024 * 1024
EVENT = b'data: {"choices": [{"delta": {"content": "hel"}}]}\n\n'


async def stream_for_ever(_request: Request, peer: Peer) -> None:
    """Send as much as the other side takes."""
    await peer.begin_chunks("application/octet-stream")
    while True:
        await peer.chunk(bytes(MIB))


async def stream_slowly(_request: Request, peer: Peer) -> None:
    """Send one event and then nothing until the test says so."""
    await peer.begin_chunks()
    await peer.chunk(EVENT)
    await peer.until("more")
    await peer.chunk(EVENT)
    await peer.chunk(b"")


def test_an_event_arrives_before_the_next_one_is_sent(place: Place) -> None:
    place.vendor.behave = stream_slowly

    with place.stream() as answer:
        assert answer.getheader("Content-Type") == "text/event-stream"
        assert (answer.getheader("Cache-Control"), answer.getheader("X-Accel-Buffering")) == ("no-store", "no")
        assert answer.readline() == EVENT[:-1]
        place.vendor.say("more")
        assert answer.read() == b"\n" + EVENT


def test_a_body_arrives_before_all_of_it_is_sent(place: Place) -> None:
    said = threading.Event()

    async def listen(request: Request, peer: Peer) -> None:
        await peer.answer(request.body)

    def body() -> Iterator[bytes]:
        yield b"first"
        place.vendor.wait(lambda vendor: len(vendor.heads) == 1)
        said.set()
        yield b"second"

    place.vendor.behave = listen

    assert place.ask("POST", body=body()).body == b"firstsecond"
    assert said.is_set()


def test_a_service_may_answer_before_it_has_read_the_body(place: Place) -> None:
    async def refuse_early(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.answer({"error": "too large for us"}, 413, {"Connection": "close"})
        # Closing at once would reset the connection, and the answer might be lost with it.
        await peer.gone()

    place.vendor.raw = refuse_early

    answer = place.ask("POST", body=bytes(32 * MIB))

    assert (answer.status, answer.json()) == (413, {"error": "too large for us"})


def test_a_slow_reader_costs_no_memory(place: Place) -> None:
    place.vendor.behave = stream_for_ever
    with contextlib.ExitStack() as open_ones:
        answers = [open_ones.enter_context(place.stream()) for _ in range(8)]
        for answer in answers:
            answer.read(4 * MIB)
        before = _resident()
        for answer in answers:
            answer.read(32 * MIB)
        place.vendor.wait(lambda vendor: len(vendor.requests) == 8)
        after = _resident()

    # A quarter of a gigabyte went through. The server and the clients of this test share the memory that is measured.
    assert after - before < 24 * MIB


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_reader_that_stops_stops_the_service(place: Place) -> None:
    sent = 0

    async def count(request: Request, peer: Peer) -> None:
        nonlocal sent
        if request.method == "HEAD":
            await peer.head(200, {"Content-Length": "0"})
            return
        await peer.begin_chunks("application/octet-stream")
        while sent < 256:
            await peer.chunk(bytes(MIB))
            sent += 1

    place.vendor.behave = count

    with place.stream() as answer:
        answer.read(MIB)
        before = None
        while before != sent:
            before = sent
            place.ask("HEAD")

        # What is between them are sockets' buffers and a few pieces.
        assert sent < 32


def test_a_client_that_leaves_ends_the_call_at_the_service(place: Place) -> None:
    left = threading.Event()

    async def stream_until_left(_request: Request, peer: Peer) -> None:
        await peer.begin_chunks()
        await peer.chunk(EVENT)
        await peer.gone()
        left.set()

    place.vendor.behave = stream_until_left

    with place.stream() as answer:
        answer.readline()

    assert left.wait(10)
    event = place.events("token.redeemed")[0]
    assert (event.status, event.reason, event.details["bytes_in"]) == (200, "client_gone", len(EVENT))
    assert not TokenUse.objects.exists()


def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_call(place: Place) -> None:
    begun, left = threading.Event(), threading.Event()

    async def listen(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        begun.set()
        await peer.gone()
        left.set()

    place.vendor.raw = listen
    connection, _ = place.half_sent("POST", "/vendor/v1/things", b"x" * 1000, length=5000)
    assert begun.wait(10)

    connection.close()

    assert left.wait(10)
    event = place.events("token.redeemed")[0]
    assert (event.status, event.reason, event.details["bytes_out"]) == (None, "client_gone", 1000)
    assert place.vendor.requests == []


def test_a_service_that_dies_while_the_body_is_sent_ends_the_call(place: Place) -> None:
    async def die(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.begin_chunks()
        await peer.chunk(EVENT)
        await peer.until("the end")
        peer.writer.transport.abort()

    place.vendor.raw = die
    connection, _ = place.half_sent("POST", "/vendor/v1/things", b"x" * 1000, length=5000)
    answer = connection.getresponse()
    assert answer.readline() == EVENT[:-1]
    place.vendor.say("the end")

    with pytest.raises(http.client.IncompleteRead):
        answer.read()

    connection.close()
    assert place.events("token.redeemed")[0].reason == "upstream_failed"
    # Nothing of the call is left that the server would have to wait for.
    began = time.monotonic()
    place.web.stop()
    assert time.monotonic() - began < GRACE_S


def test_a_revoked_token_stops_its_call(place: Place) -> None:
    place.vendor.behave = stream_slowly
    kept, token = place.token(), place.token()
    revoked = place.row()

    with place.stream(token=kept) as other, place.stream(token=token) as answer:
        answer.readline()
        other.readline()
        with turns.write():
            actions.revoke(actor=place.alice.actor, token=revoked)

        with pytest.raises(http.client.IncompleteRead):
            answer.read()

        assert place.events("token.redeemed")[0].reason == "stopped"
        place.vendor.say("more")
        assert other.read() == b"\n" + EVENT


def test_a_call_that_no_answer_has_begun_for_stops_with_its_token(place: Place) -> None:
    async def think(_request: Request, peer: Peer) -> None:
        await peer.until("the end")

    place.vendor.behave = think
    token = place.token()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(place.ask(token=token)))
    thread.start()
    place.vendor.wait(lambda vendor: len(vendor.requests) == 1)

    with turns.write():
        actions.end_of_sandbox(ALICE)
    thread.join()
    place.vendor.say("the end")

    assert (answers[0].status, answers[0].code) == (503, "stopped")


def test_a_token_that_is_used_up_lets_its_last_call_finish(place: Place) -> None:
    place.vendor.behave = stream_slowly
    token = place.token(max_uses=1)

    with place.stream(token=token) as answer:
        assert place.ask(token=token).status == 401
        place.vendor.say("more")
        assert answer.read() == EVENT * 2


def test_a_sandbox_has_so_many_calls_at_once_and_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_OF_ONE", 3)
    place.vendor.behave = stream_slowly
    token = place.token()

    with contextlib.ExitStack() as open_ones:
        for _ in range(3):
            open_ones.enter_context(place.stream(token=token)).readline()

        answer = place.ask(token=token)

        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many_streams", "1")
        assert len(place.vendor.requests) == 3
        place.vendor.say("more")
        others = place.token(sandbox=BOB)
        assert place.ask(token=others, sandbox=BOB).status == 200
    place.events("token.redeemed", 4)
    assert place.ask(token=token).status == 200


REPORTS = {
    "chat": (b'{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}}', 21),
    "messages": (b'{"usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 6}}', 21),
    "nothing": (b'{"choices": []}', 0),
}


@pytest.mark.parametrize(("body", "used"), REPORTS.values(), ids=REPORTS)
def test_what_a_model_used_is_read_from_the_answer(place: Place, body: bytes, used: int) -> None:
    async def tell(_request: Request, peer: Peer) -> None:
        await peer.answer(json.loads(body))

    place.vendor.behave = tell
    place.service("model", kind="openai")

    place.ask("POST", "/model/v1", b"{}", token=place.token(service="model"))

    assert place.events("token.redeemed")[0].details["usage"] == used


def test_what_a_model_used_is_read_from_a_stream(place: Place) -> None:
    async def tell(_request: Request, peer: Peer) -> None:
        await peer.chunked(EVENT, EVENT, b'data: {"usage": {"prompt_to', b'kens": 7, "completion_tokens": 2}}\n\n')

    place.vendor.behave = tell
    place.service("model", kind="openai")

    place.ask("POST", "/model/v1", b"{}", token=place.token(service="model"))

    assert place.events("token.redeemed")[0].details["usage"] == 9
