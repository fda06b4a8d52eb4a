"""The watch stops the calls whose token has ended, and no others."""

from __future__ import annotations

import asyncio

import pytest

from tenants.broker.problems import TooManyStreams
from tenants.broker.watching import MOST_OF_ONE, Streams, Watch


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_it_stops_the_calls_of_tokens_that_are_not_live() -> None:
    async def ask(_asked: frozenset[str]) -> frozenset[str]:
        return frozenset({"kept"})

    watch = Watch(ask, pause_s=0)
    kept, ended = (asyncio.create_task(for_ever()) for _ in range(2))

    with watch.over(kept, "kept"), watch.over(ended, "ended"):
        with pytest.raises(asyncio.CancelledError):
            await ended
        assert watch.stopped == {ended}
    assert not kept.cancelled()
    kept.cancel()


async def test_it_does_not_stop_a_call_that_it_did_not_ask_about() -> None:
    asked: list[frozenset[str]] = []
    answered = asyncio.Event()

    async def ask(tokens: frozenset[str]) -> frozenset[str]:
        asked.append(tokens)
        if len(asked) == 1:
            await answered.wait()
        return tokens

    watch = Watch(ask, pause_s=0)
    first, second = (asyncio.create_task(for_ever()) for _ in range(2))
    with watch.over(first, "first"):
        while not asked:
            await asyncio.sleep(0)
        with watch.over(second, "second"):
            answered.set()
            while len(asked) < 3:
                await asyncio.sleep(0)
            assert not first.cancelling()
            assert not second.cancelling()
    assert asked[:2] == [{"first"}, {"first", "second"}]
    first.cancel()
    second.cancel()


async def test_it_looks_again_when_it_could_not_look() -> None:
    looked = 0

    async def ask(_tokens: frozenset[str]) -> frozenset[str]:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise OSError
        return frozenset()

    watch = Watch(ask, pause_s=0)
    task = asyncio.create_task(for_ever())

    with watch.over(task, "ended"), pytest.raises(asyncio.CancelledError):
        await task

    assert looked > 1


def test_a_sandbox_has_a_bound_of_its_own() -> None:
    streams = Streams()
    held = [streams.one_more("ialice") for _ in range(MOST_OF_ONE)]
    for one in held:
        one.__enter__()

    with pytest.raises(TooManyStreams), streams.one_more("ialice"):
        pass
    with streams.one_more("ibob"):
        pass

    held[0].__exit__(None, None, None)
    with streams.one_more("ialice"):
        pass
