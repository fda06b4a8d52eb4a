"""Sandboxes, executions, templates and nodes in Django's admin: read only, because changes go through actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from sandboxes.models import Execution, Node, Sandbox, Template

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Model]
else:
    ModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(ModelAdmin):
    """Rows to look at."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds rows by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody changes rows by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody deletes rows by hand."""
        return False


@admin.register(Sandbox)
class SandboxAdmin(ReadOnlyAdmin):
    """Sandboxes of all tenants, newest first."""

    list_display = ("id", "tenant", "template_name", "state", "end_reason", "started_at", "end_at", "node")
    list_filter = ("state", "end_reason", "tier", "network_mode", "network_cut")
    exclude = ("network_secrets",)
    list_select_related = ("tenant", "node")
    search_fields = ("id", "created_by")
    ordering = ("-started_at", "id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        """Return the rows of every tenant: this page is for the platform's operators."""
        return Sandbox.everywhere().order_by(*self.ordering)


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    """Executions of all tenants, newest first, without what they wrote."""

    list_display = ("id", "tenant", "language", "tier", "state", "exit_code", "created_at")
    list_filter = ("state", "tier", "language")
    list_select_related = ("tenant",)
    search_fields = ("id", "sandbox_id", "created_by")
    ordering = ("-created_at", "id")
    exclude = ("stdout", "stderr")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        """Return the rows of every tenant: this page is for the platform's operators."""
        return Execution.everywhere().defer(*self.exclude).order_by(*self.ordering)


@admin.register(Template)
class TemplateAdmin(ReadOnlyAdmin):
    """Templates, public ones and those of tenants."""

    list_display = ("name", "tenant", "build_id", "tier", "updated_at")
    list_select_related = ("tenant",)
    search_fields = ("id", "name", "build_id")


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Nodes, and how far their events were taken."""

    list_display = ("id", "version", "boot_id", "events_upto", "last_seen_at")
