"""Who writes events: whether numbers are missing, who fell silent, and how many there are of each."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import connection, transaction

from audit import recording
from audit.models import Producer
from corekit import clock
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEARTBEAT_S = 60.0
SILENT_AFTER = timedelta(minutes=3)
NODE = "node:"
"""How the names of those begin that are asked each second, so that their silence means something."""
_SAY_AGAIN_S = 20.0

_COUNT = (
    "INSERT INTO audit_producer (id, events, last_seq, heard_at) VALUES (%s, %s, 0, %s) ON CONFLICT (id)"
    " DO UPDATE SET events = audit_producer.events + excluded.events, heard_at = excluded.heard_at"
)
_said: dict[str, float] = {}
_saying = threading.Lock()


def count(events: Mapping[str, int]) -> None:
    """Add to how many events each producer has written. Call it inside the transaction that seals them."""
    now = clock.now()
    with connection.cursor() as cursor:
        cursor.executemany(_COUNT, [(name, number, now) for name, number in sorted(events.items())])


def hear(producer: str) -> None:
    """Note that a producer answers, whether it had events or not. Written down a few times a minute only."""
    with _saying:
        if time.monotonic() - _said.get(producer, -_SAY_AGAIN_S) < _SAY_AGAIN_S:
            return
        _said[producer] = time.monotonic()
    count({producer: 0})


def check_numbers(producer: str, *, after: int, numbers: Iterable[int]) -> None:
    """Record each hole in the numbers of events that follow the number `after`: something was lost on the way.

    With `after` 0 nothing is known of the producer, and its first number is where it begins.
    """
    last = after
    for number in numbers:
        if last and number > last + 1:
            _record("audit.gap", producer, expected=last + 1, got=number)
        last = max(last, number)


def note_restart(producer: str, *, after: int) -> None:
    """Record that a producer counts anew: what it had beyond the last number that was taken is lost."""
    _record("audit.gap", producer, expected=after + 1, got=1)


def beat() -> None:
    """Record that the audit is alive and how many events of each producer are sealed; tell who fell silent."""
    with transaction.atomic():
        totals = dict(Producer.objects.order_by("id").values_list("id", "events"))
        _record("audit.heartbeat", "audit", producers=totals)
        _tell_silent()


def _tell_silent() -> None:
    now = clock.now()
    for one in Producer.objects.select_for_update().filter(id__startswith=NODE).order_by("id"):
        silent = one.heard_at < now - SILENT_AFTER
        if silent and one.silent_since is None:
            _record("audit.producer_silent", one.pk, heard_at=clock.to_rfc3339(one.heard_at))
            Producer.objects.filter(pk=one.pk).update(silent_since=one.heard_at)
        elif not silent and one.silent_since is not None:
            _record("audit.producer_back", one.pk, silent_since=clock.to_rfc3339(one.silent_since))
            Producer.objects.filter(pk=one.pk).update(silent_since=None)


def _record(code: str, producer: str, **details: object) -> None:
    recording.record(code, actor=SYSTEM, object_type="producer", object_id=producer, tenant_id=None, details=details)


def forget_said() -> None:
    """Write down the next sign of life of each producer, as a new process does."""
    with _saying:
        _said.clear()
