"""The live part of the audit browser: new events as rows, through the filters of the page that shows them."""

# mypy: disable-error-code="no-untyped-call"
# The consumers that this one is made from have no types.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.template.loader import render_to_string

from audit import selectors
from audit.feed import watch
from audit.filters import EventFilters
from audit.presenting import note_reading, table_of
from corekit.errors import GatehouseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import QueryDict

    from corekit.web.pages import Viewer

# More at once are not shown one by one: the page loads its list again.
MOST_ROWS = 100
_GONE = 4403


class AuditFeed(AsyncJsonWebsocketConsumer):
    """`/ws/audit?tenant=SLUG&after=PLACE&…filters`. It sends `ready`, then `events` with rows, or `many`.

    Every message carries `after`: the place in the chain up to which the page has seen everything.
    """

    channel_name = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection; whichever way it ends, nobody watches for it any longer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await watch.leave(self.channel_name)

    async def connect(self) -> None:
        """Begin after the place that the page has seen."""
        query: QueryDict = self.scope["query"]
        self.after = _number(query.pop("after", [""])[-1])
        self.filters = query
        self.viewer: Callable[[], Viewer] = self.scope["viewer"]
        try:
            viewer = await database_sync_to_async(self._begin)()
        except GatehouseError as error:
            await self.close(4000 + error.status)
            return
        await self.accept()
        watch.join(self.channel_name, viewer.tenant_id)
        await self.send_json({"type": "ready", "after": self.after})
        await self.audit_grown()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Ignore what a page says: a new filter is a new connection."""

    async def audit_grown(self, message: object = None) -> None:
        """Send what is new, if the viewer may still see it."""
        try:
            answer = await database_sync_to_async(self._news)()
        except GatehouseError:
            await self.close(_GONE)
            return
        if answer is not None:
            await self.send_json(answer)

    def _begin(self) -> Viewer:
        viewer = self.viewer()
        filters = selectors.filtered(selectors.events_at(viewer.actor, viewer.tenant_id), self.filters)
        note_reading(viewer, [*filters.given, "live"])
        if self.after is None:
            self.after = selectors.place(viewer.tenant_id)
        return viewer

    def _news(self) -> dict[str, Any] | None:
        viewer = self.viewer()
        found = selectors.sealed_after(viewer.tenant_id, self.after or 0, limit=MOST_ROWS + 1)
        if not found:
            return None
        if len(found) > MOST_ROWS:
            self.after = selectors.place(viewer.tenant_id)
            return {"type": "many", "after": self.after}
        self.after = found[-1][0]
        rows = selectors.events_at(viewer.actor, viewer.tenant_id).filter(pk__in=[event for _, event in found])
        events = EventFilters(self.filters, queryset=rows).rows.order_by(*selectors.NEWEST_EVENT.fields)
        table = table_of(events, viewer)
        if not table.rows:
            return {"type": "events", "after": self.after, "rows": ""}
        return {"type": "events", "after": self.after, "rows": render_to_string("audit/rows.html", {"table": table})}


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
