"""The list of events as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django_tables2 as tables

from audit.models import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from corekit.web.pages import Viewer


def _cell(name: str, label: str) -> tables.TemplateColumn:
    return tables.TemplateColumn(
        template_name=f"audit/cells/{name}.html",
        verbose_name=label,
        orderable=False,
        attrs={"td": {"class": f"gh-{name}"}},
    )


class EventTable(tables.Table):
    """Events, each one row that opens its details."""

    at = _cell("when", "When")
    code = _cell("what", "What happened")
    actor_name = _cell("who", "Who")
    sandbox_id = _cell("where", "Sandbox")
    outcome = _cell("result", "Result")
    risk_score = _cell("risk", "Risk")

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

    def before_render(self, request: Any) -> None:
        """Nothing depends on the request."""
