"""A value is kept for a while: one load for all who ask, an older value for a vault that is away, and not for ever."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from corekit.redaction import HIDDEN, redact
from tenants.vaults import cache
from tenants.vaults.cache import ValueCache
from tenants.vaults.contract import (
    SecretDisabled,
    SecretMissing,
    VaultDenied,
    VaultMisconfigured,
    VaultUnavailable,
)
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from corekit.errors import GatehouseError

VALUE, OTHER = SecretValue(b"first value"), SecretValue(b"second value")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Loader:
    """What a vault would answer, and how often it was asked."""

    def __init__(self, answer: SecretValue | GatehouseError) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self) -> SecretValue:
        self.asked += 1
        if isinstance(self.answer, SecretValue):
            return self.answer
        raise self.answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def values(clock: Clock) -> ValueCache:
    return ValueCache(clock)


def test_a_value_is_loaded_once_and_again_when_its_time_is_over(values: ValueCache, clock: Clock) -> None:
    load = Loader(VALUE)
    for _ in range(3):
        assert values.get("a", 1, load) == VALUE
    clock.now += cache.FRESH_S * (1 - cache.JITTER) - 1
    values.get("a", 1, load)
    assert load.asked == 1

    clock.now += cache.FRESH_S * 2 * cache.JITTER + 2
    values.get("a", 1, load)
    assert load.asked == 2


def test_what_was_loaded_together_does_not_come_due_together(values: ValueCache, clock: Clock) -> None:
    load = Loader(VALUE)
    for key in range(100):
        values.get(key, 1, load)
    clock.now += cache.FRESH_S
    for key in range(100):
        values.get(key, 1, load)
    assert 110 < load.asked < 190


def test_another_revision_is_another_value(values: ValueCache) -> None:
    assert values.get("a", 1, Loader(VALUE)) == VALUE
    assert values.get("a", 2, Loader(OTHER)) == OTHER


def test_an_older_revision_never_stands_in(values: ValueCache) -> None:
    values.get("a", 1, Loader(VALUE))
    with pytest.raises(VaultUnavailable):
        values.get("a", 2, Loader(VaultUnavailable()))


def test_many_who_ask_at_once_are_served_by_one_load(values: ValueCache) -> None:
    asked, go_on = threading.Semaphore(0), threading.Event()
    load = Loader(VALUE)

    def slow() -> SecretValue:
        go_on.wait(30)
        return load()

    def ask() -> SecretValue:
        asked.release()
        return values.get("a", 1, slow)

    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(ask) for _ in range(50)]
        for _ in waiting:
            asked.acquire(timeout=30)
        go_on.set()
        assert {one.result(30).reveal() for one in waiting} == {VALUE.reveal()}
    assert load.asked == 1


def test_all_who_wait_for_a_load_hear_that_it_failed_and_the_next_one_tries_again(values: ValueCache) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def fail() -> SecretValue:
        entered.set()
        go_on.wait(30)
        raise VaultUnavailable("It is away.")

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(values.get, "a", 1, fail)]
        entered.wait(30)
        waiting += [pool.submit(values.get, "a", 1, fail) for _ in range(7)]
        go_on.set()
        errors = [one.exception(30) for one in waiting]
    assert all(isinstance(error, VaultUnavailable) for error in errors)
    assert values.get("a", 1, Loader(VALUE)) == VALUE


def test_a_slow_load_of_one_secret_holds_up_no_other(values: ValueCache) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> SecretValue:
        entered.set()
        go_on.wait(30)
        return VALUE

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(values.get, "a", 1, slow)
        entered.wait(30)
        assert values.get("b", 1, Loader(OTHER)) == OTHER
        go_on.set()
        assert waiting.result(30) == VALUE


def test_an_older_value_stands_in_for_a_vault_that_is_away_for_an_hour_and_no_longer(
    values: ValueCache, clock: Clock
) -> None:
    load = Loader(VALUE)
    values.get("a", 1, load)
    load.answer = VaultUnavailable("It is away.")

    clock.now += cache.STALE_S - 1
    assert values.get("a", 1, load) == VALUE
    assert load.asked == 2
    clock.now += 1
    with pytest.raises(VaultUnavailable, match="It is away"):
        values.get("a", 1, load)


def test_a_vault_that_is_away_is_asked_only_now_and_then(values: ValueCache, clock: Clock) -> None:
    load = Loader(VALUE)
    values.get("a", 1, load)
    clock.now += 2 * cache.FRESH_S
    load.answer = VaultUnavailable()
    for _ in range(10):
        assert values.get("a", 1, load) == VALUE
    assert load.asked == 2

    clock.now += cache.PAUSE_S
    load.answer = OTHER
    assert values.get("a", 1, load) == OTHER


def test_without_an_older_value_a_vault_that_is_away_is_an_error_each_time(values: ValueCache) -> None:
    load = Loader(VaultUnavailable())
    for _ in range(2):
        with pytest.raises(VaultUnavailable):
            values.get("a", 1, load)
    assert load.asked == 2


@pytest.mark.parametrize("error", [VaultDenied(), VaultMisconfigured(), SecretMissing(), SecretDisabled()])
def test_a_vault_that_answers_is_believed_at_once(values: ValueCache, clock: Clock, error: GatehouseError) -> None:
    load = Loader(VALUE)
    values.get("a", 1, load)
    clock.now += 2 * cache.FRESH_S
    load.answer = error
    with pytest.raises(type(error)):
        values.get("a", 1, load)


@pytest.mark.parametrize("error", [SecretMissing("gone"), SecretDisabled("off")])
def test_that_there_is_no_value_is_remembered_for_some_seconds(
    values: ValueCache, clock: Clock, error: GatehouseError
) -> None:
    load = Loader(error)
    for _ in range(5):
        with pytest.raises(type(error), match=error.message):
            values.get("a", 1, load)
    assert load.asked == 1

    clock.now += cache.NEGATIVE_S
    load.answer = VALUE
    assert values.get("a", 1, load) == VALUE


def test_a_secret_that_was_gone_is_not_an_older_value(values: ValueCache, clock: Clock) -> None:
    load = Loader(SecretMissing())
    with pytest.raises(SecretMissing):
        values.get("a", 1, load)
    clock.now += cache.NEGATIVE_S
    load.answer = VaultUnavailable()
    with pytest.raises(VaultUnavailable):
        values.get("a", 1, load)


def test_only_so_many_values_are_kept_the_latest_used_ones(values: ValueCache) -> None:
    loads = {key: Loader(VALUE) for key in range(cache.MAX_ENTRIES + 1)}
    for key in range(cache.MAX_ENTRIES):
        values.get(key, 1, loads[key])
    values.get(0, 1, loads[0])
    values.get(cache.MAX_ENTRIES, 1, loads[cache.MAX_ENTRIES])

    values.get(0, 1, loads[0])
    values.get(1, 1, loads[1])
    assert (loads[0].asked, loads[1].asked) == (1, 2)


def test_what_is_forgotten_is_loaded_again(values: ValueCache) -> None:
    one, other = Loader(VALUE), Loader(OTHER)
    values.get("a", 1, one)
    values.get("b", 1, other)
    values.forget(lambda key: key == "a")
    values.get("a", 1, one)
    values.get("b", 1, other)
    assert (one.asked, other.asked) == (2, 1)


def test_no_value_stays_in_memory_longer_than_it_may_be_used(values: ValueCache, clock: Clock) -> None:
    text = "only this one"
    values.get("a", 1, lambda: SecretValue(text.encode()))
    clock.now += cache.STALE_S - 1
    values.get("b", 1, Loader(VALUE))
    assert redact(text) == HIDDEN

    clock.now += cache.SWEEP_S
    values.get("b", 1, Loader(VALUE))
    gc.collect()
    # Nobody holds it any more, so no log line hides it.
    assert redact(text) == text
