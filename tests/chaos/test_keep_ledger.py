"""Whatever happens in whatever order, and whoever is killed in between: the chain verifies and the count is right."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

import pytest

from tests.chaos.ledger import Caller, counts, found, rows
from tests.chaos.reality import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.live import Stack
    from tests.servers import Server

KILLED = ("web", "worker", "node", "gateway")
ACTS = 40
ONE_KILL_IN = 8


def _settled(stack: Stack, caller: Caller) -> bool:
    now = counts(stack)
    return caller.expected <= found(stack).keys() and now["waiting"] == 0 and now["seals"] == now["events"]


def _restart(database: Server) -> None:
    database.kill()
    database.start()


def _random_sequence(stack: Stack, database: Server | None, seed: int) -> None:
    dice = random.Random(seed)
    kills: list[Callable[[], None]] = [functools.partial(stack.kill, service) for service in KILLED]
    if database is not None:
        kills.append(functools.partial(_restart, database))
    caller = Caller(stack, dice)
    for _ in range(ACTS):
        if dice.randrange(ONE_KILL_IN) == 0:
            dice.choice(kills)()
            if dice.random() < 0.5:
                stack.wait_until_answers()
        caller.act()
    stack.wait_until_answers()

    assert len(caller.expected) >= ACTS // 4
    assert eventually(lambda: _settled(stack, caller), timeout_s=60), (
        counts(stack),
        caller.expected - found(stack).keys(),
    )
    twice = {pair: times for pair, times in found(stack).items() if times > 1 and pair in caller.expected}
    assert twice == {}
    now = counts(stack)
    assert now["seals"] == now["chains"]
    assert now["results"] == 0
    gaps = "SELECT chain FROM audit_seal GROUP BY chain HAVING MIN(seq) <> 1 OR MAX(seq) <> COUNT(*)"
    assert rows(stack, gaps) == []
    verified = stack.manage("audit_verify", check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("seed", [1, 2])
def test_random_acts_and_kills(doomed: Stack, database: Server | None, seed: int) -> None:
    _random_sequence(doomed, database, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_random_acts_and_kills(doomed: Stack, database: Server | None, seed: int) -> None:
    _random_sequence(doomed, database, seed)
