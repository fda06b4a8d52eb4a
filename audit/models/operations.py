"""Operations: long tasks as rows, which change until they are finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone

from corekit.ids import new_event_id

if TYPE_CHECKING:
    from corekit.actor import Actor


class OperationState(models.TextChoices):
    """`running` means wanted: whether somebody works on it at this moment is said by its lease."""

    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"


class Operation(models.Model):
    """One long task: what was asked, how far it is, what came of it. It outlives what it works on.

    `progress` and `result` are JSON objects of the task's kind. `error` says why it waits or failed. Whoever works
    on it holds the lease, `leased_by` until `leased_until`; when they die, somebody else goes on from `progress`.
    """

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    tenant_id = models.UUIDField(null=True)
    type = models.CharField(max_length=64)
    object_type = models.CharField(max_length=32)
    object_id = models.CharField(max_length=128)
    state = models.CharField(max_length=16, choices=OperationState, default=OperationState.RUNNING)
    progress = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    result = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    error = models.CharField(max_length=500, blank=True, default="")
    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    leased_by = models.CharField(max_length=32, blank=True, default="")
    leased_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("tenant_id", "-created_at", "-id"), name="audit_operation_tenant_page"),
            models.Index(fields=("-created_at", "-id"), name="audit_operation_page"),
        )
        constraints = (
            models.CheckConstraint(condition=models.Q(state__in=OperationState.values), name="audit_operation_state"),
            # Two at a time on one object would undo each other's work.
            models.UniqueConstraint(
                fields=("type", "object_type", "object_id"),
                condition=models.Q(state="running"),
                name="audit_operation_one_at_a_time",
            ),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.object_id} {self.state}"

    @classmethod
    def visible_to(cls, actor: Actor) -> models.QuerySet[Operation]:
        """Return what an actor may see: all for the platform, its tenant's operations for everybody else."""
        if actor.tenant_id is not None:
            return cls.objects.filter(tenant_id=actor.tenant_id)
        return cls.objects.all() if actor.has("*") else cls.objects.none()
