"""Every event gets a number in its chain, once, and the chain's hashes follow from what the database holds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from audit import appendonly, canonical, merkle, recording, sealing
from audit.models import Chain, Event, Producer, Seal, Unsealed
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from tenants.models import Tenant

pytestmark = pytest.mark.django_db

NOTHING = bytes(32)


def _record(tenant: Tenant | None, count: int = 1) -> list[Event]:
    return [
        recording.record(
            "sandbox.connected",
            actor=SYSTEM,
            object_type="sandbox",
            object_id=f"i{number}",
            tenant_id=tenant.pk if tenant else None,
            details={"timeout_ms": number},
        )
        for number in range(count)
    ]


def _chain(name: str) -> list[tuple[int, str]]:
    return list(Seal.objects.filter(chain=name).order_by("seq").values_list("seq", "event_id"))


def _change(sql: str, *values: str) -> None:
    """Change the ledger as somebody with all rights does: without its triggers."""
    appendonly.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
    appendonly.install(connection)


@pytest.fixture(autouse=True)
def _nothing_waits(acme: Tenant) -> None:
    """Let each test begin with chains that hold what making the tenants wrote."""
    sealing.seal()


def test_events_get_their_numbers_in_the_order_they_came(acme: Tenant) -> None:
    before = len(_chain(acme.pk.hex))
    events = _record(acme, 5)

    assert sealing.seal() == 5

    assert _chain(acme.pk.hex)[before:] == [(before + at, one.pk) for at, one in enumerate(events, 1)]
    assert not Unsealed.objects.exists()


def test_each_tenant_has_a_chain_and_the_platform_another(acme: Tenant, evil_corp: Tenant) -> None:
    sealing.seal()
    sizes = {name: len(_chain(name)) for name in (acme.pk.hex, evil_corp.pk.hex, "platform")}
    mine, platforms, theirs = _record(acme, 2), _record(None), _record(evil_corp)

    sealing.seal()

    found = {name: [one for _, one in _chain(name)][size:] for name, size in sizes.items()}
    assert found == {
        acme.pk.hex: [one.pk for one in mine],
        evil_corp.pk.hex: [theirs[0].pk],
        "platform": [platforms[0].pk],
    }


def test_each_hash_covers_the_one_before_and_the_event(acme: Tenant) -> None:
    _record(acme, 3)
    sealing.seal()

    previous, tree = NOTHING, merkle.Frontier()
    seals = Seal.objects.filter(chain=acme.pk.hex).order_by("seq").values_list("seq", "event_id", "hash")
    for seq, event_id, found in seals:
        body = canonical.body(Event.objects.get(pk=event_id))
        previous = canonical.chain_hash(acme.pk.hex, seq, previous, body)
        assert found == previous.hex()
        tree.append(previous)

    head = Chain.objects.get(pk=acme.pk.hex)
    assert (head.size, head.head) == (tree.size, previous.hex())
    assert head.frontier == [root.hex() for _, root in tree.subtrees()]


def test_nothing_new_changes_nothing(acme: Tenant) -> None:
    before = Chain.objects.values().get(pk=acme.pk.hex)
    assert sealing.seal() == 0
    assert Chain.objects.values().get(pk=acme.pk.hex) == before


def test_more_than_a_batch_is_sealed_in_one_run(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sealing.BATCH, connection.vendor, 3)
    _record(acme, 8)
    assert sealing.seal() == 8
    numbers = [seq for seq, _ in _chain(acme.pk.hex)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_run_ends_after_the_batch_in_which_its_time_is_up(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sealing.BATCH, connection.vendor, 3)
    _record(acme, 8)
    assert sealing.seal(budget_s=0) == 3
    assert Unsealed.objects.count() == 5


def test_seals_of_all_chains_count_upwards_in_the_order_of_sealing(acme: Tenant, evil_corp: Tenant) -> None:
    sealing.seal()
    last = Seal.objects.order_by("-pk").values_list("pk", flat=True)[0]
    events = [*_record(acme), *_record(evil_corp), *_record(acme)]
    sealing.seal()
    assert list(Seal.objects.filter(pk__gt=last).order_by("pk").values_list("event_id", flat=True)) == [
        one.pk for one in events
    ]


def test_the_events_of_each_producer_are_counted(acme: Tenant) -> None:
    name = recording.producer()
    before = Producer.objects.get(pk=name).events
    _record(acme, 3)
    sealing.seal()
    assert Producer.objects.get(pk=name).events == before + 3


def test_an_event_that_was_taken_away_before_is_told(acme: Tenant) -> None:
    gone, kept = _record(acme, 2)
    _change("DELETE FROM audit_event WHERE id = %s", gone.pk)

    sealing.seal()
    sealing.seal()

    assert _chain(acme.pk.hex)[-1][1] == kept.pk
    told = Event.objects.get(code="audit.event_lost")
    assert (told.object_id, told.tenant_id) == (gone.pk, None)
    assert _chain("platform")[-1][1] == told.pk
    assert not Unsealed.objects.exists()


DAMAGES = {
    "sqlite": ["details = '[1e999]'", "actor_name = CAST(x'ff' AS TEXT)", "at = 'tomorrow'"],
    "postgresql": ["details = '[1e999]'", "duration_ms = 'NaN'", "at = 'infinity'"],
}


def test_rows_that_nobody_of_us_wrote_get_their_numbers_like_any_other(acme: Tenant) -> None:
    damages = DAMAGES[connection.vendor]
    events = _record(acme, len(damages) + 1)
    for event, damage in zip(events, damages, strict=False):
        _change(f"UPDATE audit_event SET {damage} WHERE id = %s", event.pk)  # noqa: S608

    assert sealing.seal() == len(events)

    assert [one for _, one in _chain(acme.pk.hex)][-len(events) :] == [event.pk for event in events]


def test_an_event_of_no_known_tenant_belongs_to_the_platform() -> None:
    assert sealing.chain_of(None) == "platform"
    assert sealing.chain_of("not a tenant") == "platform"
    assert sealing.chain_of("0190f3c2-7a10-7e2b-8c3d-4e5f60718293") == "0190f3c27a107e2b8c3d4e5f60718293"


@pytest.mark.django_db(transaction=True)
def test_sealers_at_the_same_time_number_each_event_once(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sealing.BATCH, connection.vendor, 5)
    _record(acme, 60)
    start = threading.Barrier(3)
    problems: list[Exception] = []

    def run() -> None:
        try:
            start.wait()
            while Unsealed.objects.exists():
                sealing.seal()
        except Exception as error:  # noqa: BLE001  (a thread's failure must fail the test)
            problems.append(error)
        finally:
            connection.close()

    threads: list[Any] = [threading.Thread(target=run) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert problems == []
    numbers = [seq for seq, _ in _chain(acme.pk.hex)]
    assert numbers == list(range(1, Event.objects.filter(tenant_id=acme.pk).count() + 1))
