"""Time: aware UTC datetimes inside, epoch milliseconds between processes, RFC 3339 in the APIs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def epoch_ms() -> int:
    """Return the current time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def to_ms(at: datetime) -> int:
    """Return an aware time as milliseconds since 1970, cut off below the millisecond."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Return milliseconds since 1970 as an aware time. Exact: no floating point is involved."""
    return _EPOCH + timedelta(milliseconds=ms)


def to_rfc3339(at: datetime | int) -> str:
    """Return a time (aware, or milliseconds since 1970) as `2026-01-02T03:04:05.678Z`."""
    moment = from_ms(at) if isinstance(at, int) else at.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
