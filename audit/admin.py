"""The audit in Django's admin: read only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

from audit import models as rows
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


@admin.register(rows.Checkpoint)
class CheckpointAdmin(KeptAdmin):
    """Signed checkpoints, newest first."""

    list_display = ("at", "chain", "size", "root", "key_id")
    ordering = ("-id",)
    exclude = ("leaves",)


@admin.register(rows.Verdict)
class VerdictAdmin(KeptAdmin):
    """What thresholds asked for."""

    list_display = ("created_at", "action", "sandbox_id", "score", "threshold", "state", "decided_by")
    list_filter = ("action", "state")


@admin.register(rows.Webhook)
class WebhookAdmin(KeptAdmin):
    """Where events are sent. The secrets stay out of sight."""

    list_display = ("created_at", "url", "tenant_id", "enabled", "disabled_reason")
    exclude = ("secret", "previous_secret")


@admin.register(rows.ArgumentCopy)
class ArgumentCopyAdmin(KeptAdmin):
    """Which encrypted copies there are."""

    list_display = ("event_id", "tenant_id", "key_id", "expires_at")
    exclude = ("ciphertext",)


admin.site.register(
    (
        rows.AnchorPosition,
        rows.Chain,
        rows.Delivery,
        rows.LedgerPolicy,
        rows.Producer,
        rows.PruneRange,
        rows.PruneRecord,
        rows.RiskLevel,
        rows.RiskPolicy,
        rows.RiskSuppression,
        rows.Seal,
        rows.SigningKey,
        rows.Unsealed,
    ),
    KeptAdmin,
)
