"""The database itself refuses to change or delete what the ledger holds, whoever asks it to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from audit import appendonly
from audit.models import Checkpoint, Event, PruneRange, PruneRecord, Seal, SigningKey, Unsealed
from audit.recording import record
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from tenants.models import Tenant

HASH = "ab" * 32


def _execute(sql: str) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.rowcount)


@pytest.fixture
def event(acme: Tenant) -> Event:
    """Return the one sealed event of the tests, with a row in every table of the ledger beside it."""
    event = record("tenant.created", actor=SYSTEM, object_type="tenant", object_id="t1", tenant_id=acme.id)
    chain = acme.id.hex
    Seal.objects.create(chain=chain, seq=7, event_id=event.id, hash=HASH)
    Checkpoint.objects.create(chain=chain, size=7, root=HASH, note="n", key_id="k", leaves=b"", at=timezone.now())
    SigningKey.objects.create(id="k", public_key=HASH)
    prune = PruneRecord.objects.create(chain=chain, note="n", key_id="k", events=1, at=timezone.now())
    PruneRange.objects.create(record=prune, chain=chain, first=1, last=6)
    # PostgreSQL truncates no table whose foreign keys still have to be checked.
    connection.check_constraints()
    return event


@pytest.mark.parametrize("table", sorted(appendonly.ADDED_BY))
def test_no_row_changes(event: Event, table: str) -> None:
    with pytest.raises(DatabaseError, match=f"{table} is append-only"):
        _execute(f"UPDATE {table} SET id = id")  # noqa: S608


@pytest.mark.parametrize("table", sorted(appendonly.ADDED_BY))
def test_no_row_is_deleted(event: Event, table: str) -> None:
    with pytest.raises(DatabaseError, match=f"{table} is append-only"):
        _execute(f"DELETE FROM {table}")  # noqa: S608
    assert Event.objects.filter(pk=event.pk).exists()


@pytest.mark.parametrize("table", sorted(appendonly.ADDED_BY))
def test_no_table_is_emptied(event: Event, table: str) -> None:
    empty_it = f"TRUNCATE {table} CASCADE" if connection.vendor == "postgresql" else f"DELETE FROM {table} WHERE 1"  # noqa: S608
    with pytest.raises(DatabaseError, match="is append-only"):
        _execute(empty_it)


def test_a_pruned_event_may_go(event: Event) -> None:
    PruneRange.objects.create(record=PruneRecord.objects.get(), chain=Seal.objects.get().chain, first=7, last=7)

    assert _execute(f"DELETE FROM audit_event WHERE id = '{event.pk}'") == 1  # noqa: S608
    assert Seal.objects.get().hash == HASH


def test_new_events_wait_for_their_number(acme: Tenant) -> None:
    Unsealed.objects.all().delete()
    events = [
        record("tenant.created", actor=SYSTEM, object_type="tenant", object_id=str(n), tenant_id=acme.id)
        for n in range(3)
    ]

    assert list(Unsealed.objects.order_by("id").values_list("event_id", flat=True)) == [one.pk for one in events]
