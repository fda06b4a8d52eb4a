"""What the pages, the panel and the live feed share: who reads, and how events become rows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from audit import actions
from audit.tables import EventTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.models import Event
    from corekit.web.pages import Viewer


def note_reading(viewer: Viewer, names: Iterable[str]) -> None:
    """Write that an operator reads, and by which filters."""
    if viewer.is_operator:
        tenant_id = UUID(viewer.tenant_id) if viewer.tenant_id else None
        actions.note_reading(actor=viewer.actor, tenant_id=tenant_id, filters=sorted(names))


def table_of(rows: Iterable[Event], viewer: Viewer) -> EventTable:
    """Return events as a table; on the operators' pages with the names of their tenants."""
    rows = list(rows)
    names = None if viewer.tenant_id else viewer.tenant_names({row.tenant_id for row in rows if row.tenant_id})
    return EventTable(rows, viewer, tenants=names)
