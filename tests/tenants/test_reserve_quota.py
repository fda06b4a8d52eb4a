"""Quotas are reservations: taken whole or not at all, given back exactly once, whatever races."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import connection, transaction

from corekit import clock
from corekit.errors import Conflict, InvalidInput, NotFound, QuotaExceeded, RateLimited
from tenants import actions, quota
from tenants.models import LimitRange, Quota, Reservation
from tenants.quota import Amounts
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenants.models import Tenant

SMALL = Amounts(cpu_milli=500, memory_mib=512, disk_mib=1024, request_cpu_milli=100, request_memory_mib=128)


def used(tenant: Tenant) -> Amounts:
    return quota.usage(tenant.id).used


def summed(tenant: Tenant) -> Amounts:
    """Return the sum of the reservations: what the counters must equal."""
    rows = list(Reservation.everywhere().filter(tenant=tenant))
    return Amounts(**{name: sum(getattr(row, name) for row in rows) for name in quota.RESOURCES})


def take(tenant: Tenant, sandbox_id: str, amounts: Amounts = SMALL) -> None:
    quota.reserve(tenant_id=tenant.id, sandbox_id=sandbox_id, amounts=amounts)


def in_threads(count: int, act: Callable[[int], object]) -> list[object]:
    """Let `count` threads act at the same moment; return what each returned or raised."""
    start = threading.Barrier(count)

    def run(number: int) -> object:
        start.wait()
        try:
            return act(number)
        except (QuotaExceeded, RateLimited, Conflict) as refusal:
            return refusal
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_reserve_commit_release(acme: Tenant) -> None:
    take(acme, "i1")
    assert used(acme) == SMALL
    assert Reservation.everywhere().get().state == "reserved"
    quota.commit("i1")
    quota.commit("i1")
    assert Reservation.everywhere().get().state == "committed"
    assert quota.release("i1") is True
    assert used(acme) == Amounts(sandboxes=0)
    assert not Reservation.everywhere().exists()


def test_a_paused_sandbox_keeps_memory_and_disk_only(acme: Tenant) -> None:
    take(acme, "i1")
    quota.commit("i1")
    assert quota.park("i1") is True
    assert quota.park("i1") is False
    assert used(acme) == Amounts(sandboxes=0, memory_mib=512, disk_mib=1024, request_memory_mib=128) == summed(acme)
    quota.unpark("i1")
    quota.unpark("i1")
    assert used(acme) == SMALL == summed(acme)
    assert Reservation.everywhere().get().state == "committed"


def test_what_is_parked_is_not_given_back_twice(acme: Tenant) -> None:
    take(acme, "i1")
    take(acme, "i2")
    quota.park("i1")
    assert quota.release("i1") is True
    assert used(acme) == SMALL == summed(acme)


def test_nothing_is_parked_for_an_unknown_sandbox(acme: Tenant) -> None:
    assert quota.park("unknown") is False
    quota.unpark("unknown")
    assert used(acme) == Amounts(sandboxes=0)


@pytest.mark.parametrize(
    ("limit", "name"), [({"max_sandboxes": 1}, "sandboxes"), ({"max_cpu_milli": 999}, "cpu_milli")]
)
def test_going_on_without_room_takes_nothing_and_says_who_has_it(
    acme: Tenant, limit: dict[str, int], name: str
) -> None:
    take(acme, "i1")
    quota.park("i1")
    take(acme, "i2")
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, **limit)
    with pytest.raises(QuotaExceeded) as refusal:
        quota.unpark("i1")
    assert (refusal.value.details["limit"], refusal.value.details["used_by"]) == (name, ["i2"])
    assert refusal.value.should_retry is False
    assert Reservation.everywhere().get(pk="i1").state == "parked"
    assert used(acme) == summed(acme)
    quota.release("i2")
    quota.unpark("i1")
    assert used(acme) == SMALL


@pytest.mark.django_db(transaction=True)
def test_of_ten_that_go_on_at_once_exactly_as_many_do_as_have_room(acme: Tenant) -> None:
    for number in range(10):
        take(acme, f"i{number}")
        quota.park(f"i{number}")
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, max_sandboxes=4)

    outcomes = in_threads(10, lambda number: quota.unpark(f"i{number}"))

    assert (outcomes.count(None), sum(isinstance(one, QuotaExceeded) for one in outcomes)) == (4, 6)
    assert used(acme).sandboxes == 4
    assert used(acme) == summed(acme)


@pytest.mark.django_db(transaction=True)
def test_parking_going_on_and_ending_at_once_leave_exact_counters(acme: Tenant) -> None:
    for number in range(12):
        take(acme, f"i{number}")
        if number % 2:
            quota.park(f"i{number}")

    def act(number: int) -> object:
        sandbox_id = f"i{number % 12}"
        return (quota.park, quota.unpark, quota.release)[number // 12](sandbox_id)

    in_threads(36, act)

    assert used(acme) == summed(acme) == Amounts(sandboxes=0)


def test_releasing_again_gives_nothing_back(acme: Tenant) -> None:
    take(acme, "i1")
    take(acme, "i2")
    assert quota.release("i1") is True
    assert quota.release("i1") is False
    assert quota.release("unknown") is False
    assert used(acme) == SMALL


def test_tenant_ids_as_text_are_fine(acme: Tenant) -> None:
    quota.reserve(tenant_id=acme.id.hex, sandbox_id="i1", amounts=SMALL)
    assert quota.usage(acme.id.hex).used == SMALL


def test_a_refusal_says_which_limit_how_much_and_by_what(acme: Tenant) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, max_sandboxes=7)
    for number in range(7):
        take(acme, f"i{number}")
    with pytest.raises(QuotaExceeded) as refused:
        take(acme, "i8")
    assert refused.value.details == {
        "limit": "sandboxes",
        "allowed": 7,
        "used": 7,
        "requested": 1,
        "used_by": ["i0", "i1", "i2", "i3", "i4"],
    }
    assert str(refused.value) == (
        "The quota allows 7 sandboxes at a time; 7 sandboxes are in use by i0, i1, i2, i3, i4, "
        "and this needs 1 sandbox more."
    )
    assert used(acme).sandboxes == 7
    assert not Reservation.everywhere().filter(sandbox_id="i8").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cpu_milli", "1.2 CPU"),
        ("memory_mib", "1200 MiB of memory"),
        ("disk_mib", "1200 MiB of disk"),
        ("request_cpu_milli", "1.2 CPU of requests"),
        ("request_memory_mib", "1200 MiB of memory requests"),
    ],
)
def test_every_resource_is_limited(acme: Tenant, name: str, said: str) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, **{f"max_{name}": 1000})
    with pytest.raises(QuotaExceeded, match=said) as refused:
        take(acme, "i1", Amounts(**{name: 1200}))
    assert refused.value.details["limit"] == name
    assert used(acme) == Amounts(sandboxes=0)
    take(acme, "i1", Amounts(**{name: 1000}))


def test_the_biggest_users_are_named_first(acme: Tenant) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, max_memory_mib=1000)
    take(acme, "ismall", Amounts(memory_mib=100))
    take(acme, "ibig", Amounts(memory_mib=800))
    take(acme, "inone", Amounts(memory_mib=0))
    with pytest.raises(QuotaExceeded) as refused:
        take(acme, "imore", Amounts(memory_mib=200))
    assert refused.value.details["used_by"] == ["ibig", "ismall"]


def test_a_lowered_limit_stops_only_new_ones(acme: Tenant) -> None:
    take(acme, "i1")
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, max_cpu_milli=100)
    with pytest.raises(QuotaExceeded):
        take(acme, "i2")
    take(acme, "i3", Amounts(memory_mib=1))
    quota.release("i1")
    assert used(acme).cpu_milli == 0


def test_the_same_sandbox_reserves_once(acme: Tenant) -> None:
    take(acme, "i1")
    with pytest.raises(Conflict):
        take(acme, "i1")
    assert used(acme) == SMALL


def test_committing_what_was_released_is_not_found(acme: Tenant) -> None:
    with pytest.raises(NotFound):
        quota.commit("i1")


def test_an_unknown_tenant_is_not_found(db: None) -> None:
    with pytest.raises(NotFound):
        quota.reserve(tenant_id="0" * 32, sandbox_id="i1", amounts=SMALL)
    with pytest.raises(NotFound):
        quota.usage("0" * 32)
    with pytest.raises(NotFound):
        quota.resolve_resources("0" * 32)


def test_a_failing_caller_gives_the_share_back(acme: Tenant) -> None:
    def fail() -> None:
        with transaction.atomic():
            take(acme, "i1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert used(acme) == Amounts(sandboxes=0)


def test_tenants_do_not_share(acme: Tenant, evil_corp: Tenant) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, max_sandboxes=1)
    take(acme, "i1")
    take(evil_corp, "i2")
    with pytest.raises(QuotaExceeded) as refused:
        take(acme, "i3")
    assert refused.value.details["used_by"] == ["i1"]


@pytest.mark.django_db(transaction=True)
def test_100_racing_creates_at_a_quota_of_10_give_10(acme: Tenant) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, max_sandboxes=10)
    results = in_threads(100, lambda number: take(acme, f"i{number}"))
    assert results.count(None) == 10
    refusals = [result for result in results if isinstance(result, QuotaExceeded)]
    assert len(refusals) == 90
    assert all(refusal.details["limit"] == "sandboxes" for refusal in refusals)
    assert used(acme) == summed(acme) == Amounts(10, *(10 * value for value in (500, 512, 1024, 100, 128)))


@pytest.mark.django_db(transaction=True)
def test_racing_releases_give_back_once(acme: Tenant) -> None:
    take(acme, "i1")
    take(acme, "i2")
    results = in_threads(20, lambda _: quota.release("i1"))
    assert sorted(map(bool, results)) == [False] * 19 + [True]
    assert used(acme) == summed(acme) == SMALL


@pytest.mark.django_db(transaction=True)
def test_counters_equal_the_reservations_after_a_storm(acme: Tenant) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, max_sandboxes=5)

    def live(number: int) -> None:
        for turn in range(5):
            sandbox_id = f"i{number}x{turn}"
            try:
                take(acme, sandbox_id)
            except QuotaExceeded:
                continue
            quota.commit(sandbox_id)
            if turn % 2:
                quota.release(sandbox_id)
                quota.release(sandbox_id)

    in_threads(12, live)
    assert used(acme) == summed(acme)
    assert used(acme).sandboxes <= 5


def test_the_sweep_releases_only_old_reservations_without_a_sandbox(acme: Tenant) -> None:
    for sandbox_id in ("ilive", "ileaked", "istarting"):
        take(acme, sandbox_id)
    old = clock.now() - timedelta(seconds=61)
    Reservation.everywhere().exclude(sandbox_id="istarting").update(created_at=old)
    assert quota.sweep({"ilive"}, older_than_s=60) == ["ileaked"]
    assert quota.sweep({"ilive"}, older_than_s=60) == []
    assert used(acme).sandboxes == 2
    assert used(acme) == summed(acme)


def test_creates_come_as_a_minutes_worth_and_then_evenly(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, creates_per_minute=3)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    for _ in range(3):
        quota.take_create_permit(acme.id)
    with pytest.raises(RateLimited) as refused:
        quota.take_create_permit(acme.id)
    assert refused.value.retry_after == 20
    assert refused.value.details == {"limit": "creates_per_minute", "allowed": 3}
    now += 19_900_000_000
    with pytest.raises(RateLimited) as refused:
        quota.take_create_permit(acme.id)
    assert refused.value.retry_after == 1
    now += 200_000_000
    quota.take_create_permit(acme.id)
    with pytest.raises(RateLimited):
        quota.take_create_permit(acme.id)
    now += 3600 * 1_000_000_000
    for _ in range(3):
        quota.take_create_permit(acme.id)
    with pytest.raises(RateLimited):
        quota.take_create_permit(acme.id)


def test_a_create_that_waited_for_another_is_judged_by_the_time_after_it(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, creates_per_minute=2)
    first_came = time.time_ns()
    before = first_came - 500_000_000
    times = iter([first_came, before, first_came + 1])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    quota.take_create_permit(acme.id)
    quota.take_create_permit(acme.id)
    assert next(times, None) is None


@pytest.mark.django_db(transaction=True)
def test_racing_creates_get_exactly_the_rate(acme: Tenant) -> None:
    actions.set_quota(actor=factories.OPERATOR, tenant=acme, creates_per_minute=10)
    results = in_threads(30, lambda _: quota.take_create_permit(acme.id))
    assert results.count(None) == 10


def test_defaults_apply_where_nobody_asked(acme: Tenant) -> None:
    got = quota.resolve_resources(acme.id)
    assert got == quota.Resources(500, 512, 1024, 100, 128)
    assert got.amounts() == SMALL
    assert quota.resolve_resources(acme.id, cpu_milli=2000, memory_mib=64).cpu_milli == 2000


def test_requests_never_exceed_limits(acme: Tenant) -> None:
    got = quota.resolve_resources(acme.id, cpu_milli=50, memory_mib=64)
    assert (got.request_cpu_milli, got.request_memory_mib) == (50, 64)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"cpu_milli": 2001}, "cpu_milli"),
        ({"cpu_milli": 49}, "cpu_milli"),
        ({"memory_mib": 4096}, "memory_mib"),
        ({"memory_mib": 0}, "memory_mib"),
        ({"disk_mib": -1}, "disk_mib"),
        ({"disk_mib": 10**30}, "disk_mib"),
    ],
)
def test_out_of_range_names_the_field(acme: Tenant, asked: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        quota.resolve_resources(acme.id, **asked)
    assert refused.value.field == field
    assert refused.value.details["min"] == LimitRange.everywhere().get().__dict__[f"min_{field}"]


def test_each_step_is_one_statement_on_the_counters(acme: Tenant) -> None:
    statements: list[str] = []

    def watch(execute: Callable[..., object], sql: str, *rest: object) -> object:
        statements.append(sql)
        return execute(sql, *rest)

    for step in (
        lambda: take(acme, "i1"),
        lambda: quota.commit("i1"),
        lambda: quota.release("i1"),
        lambda: quota.take_create_permit(acme.id),
    ):
        with connection.execute_wrapper(watch):
            step()
    statements = [sql for sql in statements if "SAVEPOINT" not in sql]
    assert [sql.split()[0] for sql in statements] == [
        *("UPDATE", "INSERT"),
        "UPDATE",
        *("DELETE", "UPDATE"),
        "UPDATE",
    ]
    assert sum(sql.startswith(f"UPDATE {Quota._meta.db_table} ") for sql in statements) == 3
