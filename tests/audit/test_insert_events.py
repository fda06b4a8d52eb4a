"""Events that are inserted together read back exactly as ones that are saved one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, transaction

from audit.insertion import insert
from audit.models import Event, Unsealed
from corekit.ids import new_event_id

if TYPE_CHECKING:
    from tenants.models import Tenant

pytestmark = pytest.mark.django_db

AT = datetime(2026, 11, 25, 12, 30, 15, 678901, tzinfo=UTC)
FULL: dict[str, Any] = {
    "code": "command.start",
    "at": AT,
    "received_at": AT.astimezone(timezone(timedelta(hours=5))),
    "actor_kind": "api_key",
    "actor_id": "00112233aabbccdd",
    "actor_name": 'quote " backslash \\ tab \t newline \n é 漢 🙂',
    "origin": "2001:db8::7",
    "object_type": "sandbox",
    "object_id": "i1",
    "generation": 3,
    "producer_seq": 2**40,
    "duration_ms": 0.1 + 0.2,
    "risk_score": 100,
    "risk_findings": [{"rule": "proc.shell", "span": {"line": 1}}],
    "risk_reasons": ["a\nb", "c\td"],
    "args_shape": {"cmd": "text(9)", "args": {"é": "list(2)"}},
    "details": {"n": 1.5, "none": None, "flag": True, "text": "\\N"},
}


def _read(pk: str) -> dict[str, Any]:
    return {**Event.objects.filter(pk=pk).values().get(), "id": ""}


def test_every_column_reads_back_alike(acme: Tenant) -> None:
    saved = Event(tenant_id=acme.pk, **FULL)
    saved.save()
    together = [Event(tenant_id=acme.pk, **FULL), Event(tenant_id=None, **FULL)]

    insert(together)

    assert _read(together[0].pk) == _read(saved.pk)
    assert _read(together[1].pk) == {**_read(saved.pk), "tenant_id": None}


def test_columns_without_a_value_get_their_default(acme: Tenant) -> None:
    bare = {name: FULL[name] for name in ("code", "at", "received_at", "actor_kind", "actor_id", "actor_name")}
    saved, together = Event(**bare), Event(**bare)
    saved.save()
    insert([together])
    assert _read(together.pk) == _read(saved.pk)


def test_they_wait_for_their_numbers_in_order() -> None:
    together = [Event(**FULL) for _ in range(5)]
    insert(together)
    assert list(Unsealed.objects.order_by("id").values_list("event_id", flat=True)) == [one.pk for one in together]


def test_an_id_that_exists_inserts_none_of_them() -> None:
    known = new_event_id()
    insert([Event(id=known, **FULL)])
    with pytest.raises(IntegrityError), transaction.atomic():
        insert([Event(**FULL), Event(id=known, **FULL)])
    assert Event.objects.count() == 1


def test_nothing_is_nothing() -> None:
    insert([])
    assert not Event.objects.exists()
