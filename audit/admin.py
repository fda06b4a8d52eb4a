"""The audit in Django's admin: read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from audit.models import Event

if TYPE_CHECKING:
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Event]
else:
    ModelAdmin = admin.ModelAdmin


@admin.register(Event)
class EventAdmin(ModelAdmin):
    """Events, newest first."""

    list_display = ("at", "code", "actor_name", "object_type", "object_id", "outcome", "risk_score")
    list_filter = ("outcome", "object_type")
    search_fields = ("object_id", "actor_id", "code", "request_id")
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds rows by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        """Nobody changes rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        """Nobody deletes rows."""
        return False
