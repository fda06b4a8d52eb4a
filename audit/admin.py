"""The audit in Django's admin: read only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

from audit.models import Event, Operation

if TYPE_CHECKING:
    from django.db import models
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class KeptAdmin(ModelAdmin):
    """Rows that may be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds rows by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Nobody changes rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Nobody deletes rows."""
        return False


@admin.register(Event)
class EventAdmin(KeptAdmin):
    """Events, newest first."""

    list_display = ("at", "code", "actor_name", "object_type", "object_id", "outcome", "risk_score")
    list_filter = ("outcome", "object_type")
    search_fields = ("object_id", "actor_id", "code", "request_id")
    show_full_result_count = False


@admin.register(Operation)
class OperationAdmin(KeptAdmin):
    """Long tasks, newest first."""

    list_display = ("created_at", "type", "object_id", "state", "error", "actor_name", "finished_at")
    list_filter = ("state", "type")
