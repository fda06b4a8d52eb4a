"""The audit browser: events with their filters, one event with its reasons and proof, a sandbox's timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.http import JsonResponse

from audit import actions, charting, registry, selectors
from audit.filters import EventFilters
from audit.tables import EventTable
from corekit.errors import InvalidInput
from corekit.web.pages import PageView, is_partial
from corekit.web.paging import page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse, QueryDict

    from audit.models import Event as EventRow
    from corekit.web.pages import Viewer

ROWS = 50
# What stands in the bar; the rest is behind "More filters".
_FIRST = ("within", "code", "actor", "sandbox_id")
_MORE = ("since", "until", "decision", "outcome", "host", "token_id", "object_id")


class AuditPage(PageView):
    """Base of the audit's pages: only for who may read the audit, and never unseen by the tenant."""

    def events(self) -> QuerySet[EventRow]:
        """Return the events of this place."""
        return selectors.events_at(self.viewer.actor, self.viewer.tenant_id)

    def filters(self, query: QueryDict, rows: QuerySet[EventRow]) -> EventFilters:
        """Return the filters that a URL names. Raises InvalidInput, naming the first that is wrong."""
        filters = EventFilters(query, queryset=rows)
        for name, errors in filters.form.errors.items():
            raise InvalidInput(f"{filters.form.fields[name].label}: {errors[0]}", field=name)
        return filters

    def note_reading(self, names: Iterable[str]) -> None:
        """Write that an operator reads."""
        if self.viewer.is_operator:
            tenant_id = UUID(self.viewer.tenant_id) if self.viewer.tenant_id else None
            actions.note_reading(actor=self.viewer.actor, tenant_id=tenant_id, filters=sorted(names))

    def table(self, rows: Iterable[EventRow]) -> EventTable:
        """Return events as a table; on the operators' pages with the names of their tenants."""
        return table_of(rows, self.viewer)


def table_of(rows: Iterable[EventRow], viewer: Viewer) -> EventTable:
    """Return events as a table for somebody."""
    rows = list(rows)
    names = {} if viewer.tenant_id else viewer.tenant_names({row.tenant_id for row in rows if row.tenant_id})
    return EventTable(rows, viewer, tenants=names)


class Events(AuditPage):
    """`audit`: the list."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show one page of events; a part of it when the filters of an open page change."""
        filters = self.filters(request.GET, self.events())
        found = page(filters.qs, selectors.NEWEST_EVENT, limit=ROWS, cursor=request.GET.get("cursor"))
        self.note_reading(filters.given)
        context = {
            "filters": filters,
            "table": self.table(found.rows),
            "next": self._url(cursor=found.next) if found.next else "",
            "newest": self._url(cursor=None) if "cursor" in request.GET else "",
            "given": [self._chip(filters, name, value) for name, value in filters.given.items()],
        }
        if is_partial(request):
            return self.page("audit/list.html", context)
        return self.page("audit/events.html", context | self._around(filters))

    def _around(self, filters: EventFilters) -> dict[str, Any]:
        return {
            "first": [filters.form[name] for name in _FIRST],
            "more": [filters.form[name] for name in _MORE],
            "more_open": any(name in filters.given for name in _MORE),
            "codes": registry.all_codes(),
            "chain": selectors.chain_at(self.viewer.actor, self.viewer.tenant_id),
        }

    def _url(self, **changes: str | None) -> str:
        query = self.request.GET.copy()
        for name, value in changes.items():
            query.pop(name, None)
            if value is not None:
                query[name] = value
        return f"{self.viewer.base}audit" + (f"?{query.urlencode()}" if query else "")

    def _chip(self, filters: EventFilters, name: str, value: object) -> dict[str, str]:
        choices = dict(getattr(filters.form.fields[name], "choices", ()))
        return {
            "label": str(filters.form.fields[name].label),
            "value": str(choices.get(value, value)),
            "without": self._url(**{name: None, "cursor": None}),
        }


class RiskOverTime(AuditPage):
    """`audit/risk.json`: what the chart draws."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return counts and the highest score for each step of time, of what the filters keep."""
        filters = self.filters(request.GET, self.events())
        self.note_reading(filters.given)
        return JsonResponse(charting.risk_over_time(filters.qs, filters.given), headers={"Cache-Control": "no-store"})


class Timeline(AuditPage):
    """`audit/sandboxes/{sandbox}`: everything that happened in and to one sandbox."""

    def get(self, request: HttpRequest, sandbox_id: str) -> HttpResponse:
        """Show one page of a sandbox's events, newest first."""
        rows = selectors.events_of_sandbox(self.events(), sandbox_id)
        found = page(rows, selectors.NEWEST_EVENT, limit=ROWS, cursor=request.GET.get("cursor"))
        self.note_reading(["sandbox_id"])
        context = {"sandbox_id": sandbox_id, "table": self.table(found.rows), "next": found.next}
        return self.page("audit/timeline.html", context)


class Event(AuditPage):
    """`audit/{event}`: one event; in the panel of the list, or as a page of its own."""

    def get(self, request: HttpRequest, event_id: str) -> HttpResponse:
        """Show what happened, why it has its score, and its place in the chain."""
        event = selectors.event_at(self.events(), event_id)
        self.note_reading(["id"])
        context = {"event": event}
        return self.page("audit/event_part.html" if is_partial(request) else "audit/event.html", context)
