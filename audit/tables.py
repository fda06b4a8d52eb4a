"""The list of events as a table.

Cells are made in Python: fifty rows of templates would take longer to draw than a million rows to search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import django_tables2 as tables
from django.utils.html import format_html

from audit import registry
from audit.models import Decision, Event, Outcome, Phase
from corekit.web.markup import NOTHING, band_chip, copy_button, middle, moment, pill

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from django.utils.safestring import SafeString

    from corekit.web.pages import Viewer

_SHORT_ID = 14
_OUTCOMES = {
    Outcome.OK: ("done", "good", "check"),
    Outcome.ERROR: ("failed", "warn", "alert-circle"),
    Outcome.REFUSED: ("refused", "danger", "x"),
}


def sentence(event: Event) -> str:
    """Return what happened as one sentence."""
    target = event.object_name or middle(event.object_id, _SHORT_ID)
    return registry.sentence(event.code, actor=event.actor_name, target=target)


def result(event: Event) -> SafeString:
    """Return how an event's act ended, as a pill."""
    if event.decision == Decision.DENY:
        return pill("denied", "danger", "shield-x")
    if not event.outcome:
        return pill("begun", "quiet", "clock")
    return pill(*_OUTCOMES[Outcome(event.outcome)])


def _column(name: str, label: str) -> tables.Column:
    options = {"verbose_name": label, "empty_values": (), "orderable": False}
    column: tables.Column = tables.Column(**options, attrs={"td": {"class": f"gh-{name}"}})
    return column


class EventTable(tables.Table):
    """Events, each one row that opens its details."""

    at = _column("when", "When")
    code = _column("what", "What happened")
    actor_name = _column("who", "Who")
    sandbox_id = _column("where", "Sandbox")
    outcome = _column("result", "Result")
    risk_score = _column("risk", "Risk")

    class Meta:
        model = Event
        fields = ()
        sequence = ("at", "code", "actor_name", "sandbox_id", "outcome", "risk_score")
        orderable = False
        template_name = "audit/table.html"

    def __init__(self, rows: Iterable[Event], viewer: Viewer, tenants: Mapping[UUID, str] | None = None) -> None:
        super().__init__(rows)  # type: ignore[no-untyped-call]
        self.viewer = viewer
        # The names to show beside events of several tenants.
        self.tenants = tenants

    def render_at(self, record: Event) -> SafeString:
        """Return when, from now and by the clock."""
        exact = record.at.strftime("%H:%M:%S")
        return format_html('{}<span class="gh-second">{} <abbr title="UTC">z</abbr></span>', moment(record.at), exact)

    def render_code(self, record: Event) -> SafeString:
        """Return what happened: the link that opens the row."""
        url = f"{self.viewer.base}audit/{record.pk}"
        more = [
            "before the act" if record.phase == Phase.INTENT else "",
            "" if record.duration_ms is None else f"{record.duration_ms:.1f} ms",
            record.host,
        ]
        return format_html(
            '<a class="gh-row-link" href="{}" hx-get="{}" hx-target="#panel-body">{}</a>'
            '<span class="gh-second"><code>{}</code>{}</span>',
            *(url, url, sentence(record), record.code, "".join(f" · {part}" for part in more if part)),
        )

    def render_actor_name(self, record: Event) -> SafeString:
        """Return who it was, and from where."""
        return format_html(
            '<span class="gh-clip" title="{} {}">{}</span><span class="gh-second">{}</span>',
            *(record.actor_kind, record.actor_id, record.actor_name, record.origin or record.actor_kind),
        )

    def render_sandbox_id(self, record: Event) -> SafeString:
        """Return in which sandbox, and on pages of several tenants whose."""
        whose = (
            format_html('<span class="gh-second">{}</span>', self._tenant(record)) if self.tenants is not None else ""
        )
        if not record.sandbox_id:
            return format_html("{}{}", NOTHING, whose)
        return format_html(
            '<span class="gh-code gh-above"><a href="{}audit/sandboxes/{}"><code title="{}">{}</code></a>{}</span>{}',
            *(self.viewer.base, record.sandbox_id, record.sandbox_id, middle(record.sandbox_id, _SHORT_ID)),
            *(copy_button(record.sandbox_id, "Copy the sandbox's id"), whose),
        )

    def render_outcome(self, record: Event) -> SafeString:
        """Return how it ended."""
        return result(record)

    def render_risk_score(self, record: Event) -> SafeString:
        """Return its risk."""
        return band_chip(record.risk_band, record.risk_score, record.risk_tier)

    def _tenant(self, record: Event) -> str:
        if record.tenant_id is None:
            return "platform"
        return (self.tenants or {}).get(record.tenant_id, "erased tenant")
