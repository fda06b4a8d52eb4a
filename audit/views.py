"""The audit browser: events with their filters, one event with its reasons and proof, a sandbox's timeline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.http import HttpResponseRedirect, JsonResponse

from audit import actions, argument_copies, charting, explaining, exports, registry, selectors, thresholds
from audit.forms import OpenForm, OverrideForm
from audit.presenting import note_reading, table_of
from corekit.errors import InvalidInput, NotFound
from corekit.web.pages import PageView, is_partial
from corekit.web.paging import page
from corekit.web.streaming import streamed

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from audit.filters import EventFilters
    from audit.models import Event as EventRow
    from audit.models import Verdict

ROWS = 50
# What stands in the bar; the rest is behind "More filters".
_FIRST = ("within", "code", "actor", "sandbox_id")
_MORE = ("since", "until", "decision", "outcome", "host", "token_id", "object_id")


class AuditPage(PageView):
    """Base of the audit's pages: only for who may read the audit, and never unseen by the tenant."""

    def events(self) -> QuerySet[EventRow]:
        """Return the events of this place."""
        return selectors.events_at(self.viewer.actor, self.viewer.tenant_id)

    def filters(self) -> EventFilters:
        """Return the events that the URL's filters keep. Raises InvalidInput."""
        return selectors.filtered(self.events(), self.request.GET)


class Events(AuditPage):
    """`audit`: the list."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show one page of events; a part of it when the filters of an open page change."""
        filters = self.filters()
        found = page(filters.rows, selectors.NEWEST_EVENT, limit=ROWS, cursor=request.GET.get("cursor"))
        note_reading(self.viewer, filters.given)
        context = {
            "filters": filters,
            "table": table_of(found.rows, self.viewer),
            "next": self._url(cursor=found.next) if found.next else "",
            "newest": self._url(cursor=None) if "cursor" in request.GET else "",
            "after": selectors.place(self.viewer.tenant_id),
            **{f"export_{form}": self._url("audit/export", cursor=None, format=form) for form in exports.FORMATS},
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
            "ledger": None if self.viewer.tenant_id else selectors.ledger_state(self.viewer.actor),
        }

    def _url(self, page: str = "audit", **changes: str | None) -> str:
        query = self.request.GET.copy()
        for name, value in changes.items():
            query.pop(name, None)
            if value is not None:
                query[name] = value
        return f"{self.viewer.base}{page}" + (f"?{query.urlencode()}" if query else "")

    def _chip(self, filters: EventFilters, name: str, value: object) -> dict[str, str]:
        choices = dict(getattr(filters.form.fields[name], "choices", ()))
        return {
            "label": str(filters.form.fields[name].label),
            "value": str(choices.get(value, value)),
            "without": self._url("audit", **{name: None, "cursor": None}),
        }


class RiskOverTime(AuditPage):
    """`audit/risk.json`: what the chart draws."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return counts and the highest score for each step of time, of what the filters keep."""
        filters = self.filters()
        note_reading(self.viewer, filters.given)
        return JsonResponse(charting.risk_over_time(filters.rows, filters.given), headers={"Cache-Control": "no-store"})


class Export(AuditPage):
    """`audit/export`: what the filters keep, as a file."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Stream JSON lines with proofs, or CSV. The export is an event, whoever asks."""
        form = request.GET.get("format", "")
        if form not in exports.FORMATS:
            raise InvalidInput("An export is jsonl or csv.", field="format")
        query = dict(self.filters().given)
        if self.viewer.tenant_id:
            query["tenant_id"] = UUID(self.viewer.tenant_id)
        lines = exports.export(actor=self.viewer.actor, query=query, form=form)
        return streamed(request, lines, exports.FORMATS[form], f"audit-{self.viewer.slug or 'platform'}.{form}")


class Proof(AuditPage):
    """`audit/{event}/proof`: the path from an event to a signed root."""

    def get(self, request: HttpRequest, event_id: str) -> HttpResponse:
        """Show the proof to copy. It is asked for by itself: it reads the hashes of the chain before the event."""
        event = selectors.event_at(self.events(), event_id)
        note_reading(self.viewer, ["id"])
        proof = exports.proof_of(event)
        if proof["proof"] is None:
            raise NotFound("No checkpoint covers this event yet: ask again in a minute.")
        context = {
            "event_id": event_id,
            "steps": len(proof["proof"]["path"]),
            "size": proof["proof"]["size"],
            "json": json.dumps(proof, indent=2, ensure_ascii=False),
        }
        return self.page("audit/proof_part.html" if is_partial(request) else "audit/proof.html", context)


class Override(AuditPage):
    """`audit/verdicts/{verdict}/override`: a person says that a verdict does not hold."""

    def get(self, request: HttpRequest, verdict_id: str) -> HttpResponse:
        """Show the form."""
        verdict = self._verdict(verdict_id)
        note_reading(self.viewer, ["verdict"])
        return self._form(verdict, OverrideForm())

    def post(self, request: HttpRequest, verdict_id: str) -> HttpResponse:
        """Override with a note."""
        verdict, form = self._verdict(verdict_id), OverrideForm(request.POST)
        if not form.is_valid():
            return self._form(verdict, form, status=422)
        note = form.cleaned_data["note"]
        verdict = thresholds.override_verdict(actor=self.viewer.actor, verdict_id=verdict.pk, note=note)
        if is_partial(request):
            return self.page("audit/verdict.html", {"verdict": verdict})
        return HttpResponseRedirect(f"{self.viewer.base}audit/{verdict.event_id}")

    def _verdict(self, verdict_id: str) -> Verdict:
        return selectors.verdict_at(self.viewer.actor, self.viewer.tenant_id, verdict_id)

    def _form(self, verdict: Verdict, form: OverrideForm, status: int = 200) -> HttpResponse:
        template = "audit/override_part.html" if is_partial(self.request) else "audit/override.html"
        return self.page(template, {"verdict": verdict, "form": form}, status=status)


class Timeline(AuditPage):
    """`audit/sandboxes/{sandbox}`: everything that happened in and to one sandbox."""

    def get(self, request: HttpRequest, sandbox_id: str) -> HttpResponse:
        """Show one page of a sandbox's events, newest first."""
        rows = selectors.events_of_sandbox(self.events(), sandbox_id)
        found = page(rows, selectors.NEWEST_EVENT, limit=ROWS, cursor=request.GET.get("cursor"))
        note_reading(self.viewer, ["sandbox_id"])
        context = {"sandbox_id": sandbox_id, "table": table_of(found.rows, self.viewer), "next": found.next}
        return self.page("audit/timeline.html", context)


class Event(AuditPage):
    """`audit/{event}`: one event; in the panel of the list, or as a page of its own."""

    def get(self, request: HttpRequest, event_id: str) -> HttpResponse:
        """Show what happened, why it has its score, and its place in the chain."""
        event = selectors.event_at(self.events(), event_id)
        note_reading(self.viewer, ["id"])
        return self._shown(event, self._why(event))

    def _why(self, event: EventRow) -> dict[str, Any]:
        """Return what the reasons of the score need; the form to open the arguments for who may and where there are."""
        may_open = self.viewer.actor.has(actions.BREAK_GLASS)
        return {
            "event": event,
            "reasons": explaining.reasons(event),
            "may_open": may_open,
            "open_form": OpenForm() if may_open and argument_copies.exists_for(event) else None,
        }

    def _shown(self, event: EventRow, why: dict[str, Any], *, status: int = 200) -> HttpResponse:
        partial = is_partial(self.request)
        context = why | {
            "facts": explaining.facts(event),
            "may_override": self.viewer.actor.has(thresholds.WRITE),
            "verdicts": selectors.verdicts_on(self.viewer.actor, event),
            "place": selectors.place_of(event),
            "json": explaining.as_json(event),
            "partial": partial,
        }
        return self.page("audit/event_part.html" if partial else "audit/event.html", context, status=status)


class Arguments(Event):
    """`audit/{event}/arguments`: the event with the code that ran, for who says why they need to see it."""

    def post(self, request: HttpRequest, event_id: str) -> HttpResponse:
        """Open the copy of the arguments. That somebody did, and why, is an event before anything is shown."""
        event = selectors.event_at(self.events(), event_id)
        why, form = self._why(event), OpenForm(request.POST)
        if why["may_open"] and not form.is_valid():
            return self._answered(event, why | {"open_form": form}, status=422)
        reason = form.cleaned_data["reason"] if form.is_valid() else ""
        found = actions.open_arguments(actor=self.viewer.actor, event_id=event.pk, reason=reason)
        return self._answered(event, why | {"source": explaining.source(found, why["reasons"])})

    def _answered(self, event: EventRow, why: dict[str, Any], *, status: int = 200) -> HttpResponse:
        if is_partial(self.request):
            return self.page("audit/why.html", why, status=status)
        return self._shown(event, why, status=status)
