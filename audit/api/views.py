"""The REST API of events and operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.response import Response

from audit import actions, selectors
from audit.api import serializers as shapes
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rest_framework.request import Request

NEWEST_OPERATION = Order(("-created_at", "-id"))
_PAGING = frozenset({"limit", "cursor", "order"})


def event_query(query: Mapping[str, Any], **more: str) -> dict[str, Any]:
    """Return the filters of a checked query."""
    return {name: value for name, value in query.items() if name not in _PAGING} | more


def event_order(query: Mapping[str, Any]) -> Order:
    """Return the order that a checked query asks for."""
    return selectors.NEWEST_EVENT.reversed() if query["order"] == "asc" else selectors.NEWEST_EVENT


class Events(ApiView):
    """`/audit-events`."""

    @documented_list(
        "list_audit_events",
        "Audit",
        "List audit events",
        item=shapes.EventSerializer,
        scope="audit:read",
        query=shapes.AuditFilter,
    )
    def get(self, request: Request) -> Response:
        """List events: operators see all, everybody else their tenant's."""
        query = self.query(shapes.AuditFilter)
        rows = selectors.events_for(self.actor, event_query(query))
        if self.actor.tenant_id is None:
            actions.note_reading(
                actor=self.actor, tenant_id=query.get("tenant_id"), filters=sorted(set(query) - _PAGING)
            )
        return self.page(rows, event_order(query), shapes.EventSerializer, query)


class Event(ApiView):
    """`/audit-events/{event}`."""

    @documented("get_audit_event", "Audit", "Show an audit event", scope="audit:read", answer=shapes.EventSerializer)
    def get(self, request: Request, event_id: str) -> Response:
        """Return one event."""
        event = selectors.event_for(self.actor, event_id)
        if self.actor.tenant_id is None:
            actions.note_reading(actor=self.actor, tenant_id=event.tenant_id, filters=["id"])
        return Response(shapes.EventSerializer(event).data)


class Operations(ApiView):
    """`/operations`."""

    @documented_list(
        "list_operations", "Operations", "List operations", item=shapes.OperationSerializer, scope="tenant:read"
    )
    def get(self, request: Request) -> Response:
        """List long tasks, newest first."""
        return self.page(selectors.operations_for(self.actor), NEWEST_OPERATION, shapes.OperationSerializer)


class Operation(ApiView):
    """`/operations/{operation}`."""

    @documented(
        "get_operation", "Operations", "Show an operation", scope="tenant:read", answer=shapes.OperationSerializer
    )
    def get(self, request: Request, operation_id: str) -> Response:
        """Return one long task: how far it is, and what came of it."""
        return Response(shapes.OperationSerializer(selectors.operation_for(self.actor, operation_id)).data)
