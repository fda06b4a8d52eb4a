"""SQL of our own, one statement a call: for what races, where the mapper would need to read first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connection

if TYPE_CHECKING:
    from collections.abc import Sequence


def returned(sql: str, values: Sequence[Any]) -> Sequence[Any] | None:
    """Run a statement and return the first row that it gives back, None when there is none."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        row: Sequence[Any] | None = cursor.fetchone()
    return row


def run(sql: str, values: Sequence[Any]) -> int:
    """Run a statement and return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        changed: int = cursor.rowcount
    return changed
