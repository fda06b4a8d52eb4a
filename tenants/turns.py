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
def write() -> Iterator[None]:
    """Run a short transaction that writes; never inside another transaction, and never around a call elsewhere.

    The embedded database takes one writer at a time and lets the others sleep and poll. Threads of one process
    take turns here instead and are woken when it is theirs, which makes a burst of creates a third faster. A
    database server sorts its writers itself.
    """
    if connection.vendor != "sqlite":
        with transaction.atomic():
            yield
        return
    with _turn, transaction.atomic():
        yield
