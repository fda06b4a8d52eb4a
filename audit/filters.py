"""Which events to show: one set of filters for the pages, the live feed, the REST list and the exports."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import django_filters
from django import forms

from audit.models import Band, Decision, Event, Outcome, Phase
from corekit import clock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from django.db.models import QuerySet

    FilterSet = Any
else:
    FilterSet = django_filters.FilterSet

WITHIN = {
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "24h": ("Last 24 hours", timedelta(hours=24)),
    "7d": ("Last 7 days", timedelta(days=7)),
    "30d": ("Last 30 days", timedelta(days=30)),
}
# The partial index of risky events begins here.
_RISKY = 50
_RISKY_BANDS = frozenset({Band.HIGH, Band.CRITICAL})


def _text(length: int, label: str, **more: Any) -> django_filters.CharFilter:
    return django_filters.CharFilter(label=label, max_length=length, **more)


def _moment(label: str, lookup: str) -> django_filters.IsoDateTimeFilter:
    picker = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"})
    return django_filters.IsoDateTimeFilter(label=label, field_name="at", lookup_expr=lookup, widget=picker)


class EventFilters(FilterSet):  # type: ignore[misc]  # the library has no types
    """What may be asked of events. What is not given does not matter. `since` counts, `until` does not."""

    within = django_filters.ChoiceFilter(
        label="Time",
        choices=[(name, label) for name, (label, _) in WITHIN.items()],
        empty_label="Any time",
        method="filter_within",
    )
    since = _moment("From (UTC)", "gte")
    until = _moment("Before (UTC)", "lt")
    code = _text(64, "Event code", method="filter_code")
    actor = _text(200, "Who", method="filter_actor")
    actor_id = _text(64, "Actor's id")
    sandbox_id = _text(64, "Sandbox", method="filter_named")
    object_type = _text(32, "Kind of object")
    object_id = _text(128, "Object's id")
    outcome = django_filters.ChoiceFilter(label="Outcome", choices=Outcome.choices, empty_label="Any outcome")
    decision = django_filters.ChoiceFilter(label="Decision", choices=Decision.choices, empty_label="Any decision")
    phase = django_filters.ChoiceFilter(label="Phase", choices=Phase.choices, empty_label="Any phase")
    band = django_filters.ChoiceFilter(label="Risk", choices=Band.choices, empty_label="Any risk", method="filter_band")
    risk_at_least = django_filters.NumberFilter(label="Risk from", method="filter_risk", min_value=0, max_value=100)
    host = _text(255, "Host", method="filter_host")
    token_id = _text(64, "Token", method="filter_named")
    tenant_id = django_filters.UUIDFilter(label="Tenant", field_name="tenant_id")

    class Meta:
        model = Event
        fields = ()

    def filter_within(self, rows: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        """Keep what happened lately."""
        return rows.filter(at__gte=clock.now() - WITHIN[value][1])

    def filter_code(self, rows: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        """Keep one code, or with a `*` at its end all that begin so."""
        if value.endswith("*"):
            return rows.filter(code__startswith=value[:-1])
        return rows.filter(code=value)

    def filter_actor(self, rows: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        """Keep what somebody did, by id, or where nobody has that id, by the name at that time."""
        by_id = rows.filter(actor_id=value)
        return by_id if by_id.exists() else rows.filter(actor_name=value)

    def filter_band(self, rows: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        """Keep one band of risk."""
        if value in _RISKY_BANDS:
            rows = rows.filter(risk_score__gte=_RISKY)
        return rows.filter(risk_band=value)

    def filter_risk(self, rows: QuerySet[Event], name: str, value: Decimal) -> QuerySet[Event]:
        """Keep scores from a number on."""
        if value >= _RISKY:
            rows = rows.filter(risk_score__gte=_RISKY)
        return rows.filter(risk_score__gte=int(value))

    def filter_named(self, rows: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        """Keep what names one sandbox, token or host. The second condition lets SQLite use their partial index."""
        return rows.filter(**{name: value}).exclude(**{name: ""})

    def filter_host(self, rows: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        """Keep one host name, however it is spelled."""
        return self.filter_named(rows, name, value.strip().rstrip(".").lower())

    @property
    def rows(self) -> QuerySet[Event]:
        """Return the events that the filters keep."""
        found: QuerySet[Event] = self.qs
        return found

    @property
    def given(self) -> Mapping[str, Any]:
        """Return the filters that are set and right, by name."""
        if not self.form.is_valid():
            return {}
        return {name: value for name, value in self.form.cleaned_data.items() if value not in (None, "")}


NAMES = tuple(EventFilters.base_filters)
