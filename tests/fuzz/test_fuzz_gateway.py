"""Garbage of every kind at the public port: the gateway stays up and small, and a neighbour's stream never stops.

Every request that is malformed by construction names `/bad` somewhere in its target; no server ever sees one. The
seeds are fixed, so a failure repeats.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tests.fuzz.garbage import MALFORMED, STRANGE
from tests.fuzz.target import neighbour

if TYPE_CHECKING:
    from tests.fuzz.target import Target

_SEEDS = range(8)
_CASES = 350  # for each seed
_AT_ONCE = 12
_MOST_GROWTH_KIB = 8 * 1024


async def test_garbage_harms_nobody(target: Target) -> None:
    stop = asyncio.Event()
    following = asyncio.ensure_future(neighbour(target, stop))

    sizes = []
    for seed in _SEEDS:
        await throw(target, random.Random(seed))
        sizes.append(target.resident_kib())
    stop.set()
    ticks, silence = await following

    assert target.process.returncode is None
    faults = [
        line for line in target.said if b"request_failed" in line or b"relay_failed" in line or b"Traceback" in line
    ]
    assert faults == []
    # The first round warms up what every later round uses again.
    assert max(sizes) - sizes[0] < _MOST_GROWTH_KIB, sizes
    assert ticks > 100
    assert silence < 1.0
    seen = [*target.site.requests, *target.mallory.requests, *target.alice.requests, *target.web.requests]
    assert [request.target for request in seen if "/bad" in request.target] == []
    assert [request.body for request in target.site.requests if request.target == "/cut"] == []
    assert {request.target for request in target.mallory.calls("POST", "/init")} == set()
    assert any(request.target == "/ok" for request in target.site.requests)


async def throw(target: Target, dice: random.Random) -> None:
    """Throw a few hundred pieces of garbage, several at once."""
    kinds = [*MALFORMED, *STRANGE]
    waiting = [(dice.choice(kinds)(dice), random.Random(dice.random())) for _ in range(_CASES)]

    async def work() -> None:
        while waiting:
            data, own = waiting.pop()
            await target.send(data, own)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
