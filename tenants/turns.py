"""Writing transactions that wait for each other without sleeping."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import connection, transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

_turn = threading.RLock()


@contextmanager
def write(*, lasting: bool = True) -> Iterator[None]:
    """Run a short transaction that writes; never inside another transaction, and never around a call elsewhere.

    The embedded database takes one writer at a time and lets the others sleep and poll. Threads of one process
    take turns here instead and are woken when it is theirs, which makes a burst of creates a third faster. A
    database server sorts its writers itself.

    One that need not be lasting does not wait for the disk: a power cut may undo it, and nothing else. It is for what
    means nothing after a power cut.
    """
    if connection.vendor != "sqlite":
        with transaction.atomic():
            if not lasting:
                _run("SET LOCAL synchronous_commit = off")
            yield
        return
    with _turn, _without_waiting(connection.in_atomic_block or lasting), transaction.atomic():
        yield


@contextmanager
def _without_waiting(needless: bool) -> Iterator[None]:  # noqa: FBT001
    if needless:
        yield
        return
    _run("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        _run("PRAGMA synchronous = FULL")


def _run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
