"""The list of events as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django_tables2 as tables
from django.template.loader import render_to_string

from audit.models import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from corekit.web.pages import Viewer


class Cell(tables.Column):
    """A column whose cell is a template of its own, given the event and the table."""

    def __init__(self, name: str, label: str) -> None:
        options = {"verbose_name": label, "empty_values": (), "orderable": False}
        super().__init__(**options, attrs={"td": {"class": f"gh-{name}"}})  # type: ignore[no-untyped-call]
        self.template_name = f"audit/cells/{name}.html"

    def render(self, record: Event, table: EventTable) -> str:  # type: ignore[override]  # it gives what is named
        """Return the cell's content."""
        return render_to_string(self.template_name, {"record": record, "table": table})


class EventTable(tables.Table):
    """Events, each one row that opens its details."""

    at = Cell("when", "When")
    code = Cell("what", "What happened")
    actor_name = Cell("who", "Who")
    sandbox_id = Cell("where", "Sandbox")
    outcome = Cell("result", "Result")
    risk_score = Cell("risk", "Risk")

    class Meta:
        model = Event
        fields = ()
        sequence = ("at", "code", "actor_name", "sandbox_id", "outcome", "risk_score")
        orderable = False
        empty_text = ""
        template_name = "audit/table.html"
        attrs = {"class": "gh-table gh-events"}  # noqa: RUF012  (the library's form)

    def __init__(self, rows: Iterable[Event], viewer: Viewer, tenants: Mapping[UUID, str] | None = None) -> None:
        super().__init__(rows)  # type: ignore[no-untyped-call]
        self.viewer = viewer
        # The names to show beside events of several tenants.
        self.tenants = tenants or {}
