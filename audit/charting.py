"""Risk over time: one row for each step, counted by the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Func, IntegerField, Max, Q

from audit.filters import WITHIN
from audit.models import Band
from corekit import clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import QuerySet

    from audit.models import Event

_DEFAULT = WITHIN["24h"][1]
_LONGEST = WITHIN["30d"][1]
_STEPS = 60
_NICE_SECONDS = (15, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400)


class _Step(Func):
    """The number of a time's step since 1970. Plain arithmetic: a function per row would cost more than the rows."""

    output_field = IntegerField()
    arity = 1

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        """Return SQLite's form."""
        template = "(CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) / %(seconds)s)"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        """Return PostgreSQL's form."""
        template = "(FLOOR(EXTRACT(EPOCH FROM %(expressions)s) / %(seconds)s)::bigint)"
        return self.as_sql(compiler, connection, template=template, **extra)


def risk_over_time(events: QuerySet[Event], given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return for each step its beginning, the events of each band, and the highest score (None without any)."""
    since, until = _window(given)
    seconds = _nice((until - since) / _STEPS)
    rows = (
        events.order_by()
        .filter(at__gte=since, at__lt=until, risk_score__isnull=False)
        .annotate(step=_Step("at", seconds=seconds))
        .values("step")
        .annotate(highest=Max("risk_score"), **{band: Count("pk", filter=Q(risk_band=band)) for band in Band.values})
    )
    by_step: dict[int, dict[str, Any]] = {row["step"]: dict(row) for row in rows}
    steps = range(int(since.timestamp()) // seconds, (int(until.timestamp()) - 1) // seconds + 1)
    return {
        "at": [step * seconds for step in steps],
        "highest": [by_step[step]["highest"] if step in by_step else None for step in steps],
        **{band: [by_step[step][band] if step in by_step else 0 for step in steps] for band in Band.values},
    }


def _window(given: Mapping[str, Any]) -> tuple[datetime, datetime]:
    until: datetime = min(given.get("until") or clock.now(), clock.now())
    since: datetime = given.get("since") or until - (WITHIN[given["within"]][1] if "within" in given else _DEFAULT)
    until = until.astimezone(UTC) + timedelta(seconds=1)
    return max(min(since, until - timedelta(minutes=1)), until - _LONGEST).astimezone(UTC), until


def _nice(step: timedelta) -> int:
    return next((seconds for seconds in _NICE_SECONDS if seconds >= step.total_seconds()), _NICE_SECONDS[-1])
