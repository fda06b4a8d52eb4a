"""The audit's tables: events, which never change, and operations, which do until they are finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone

from corekit.ids import new_event_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models.base import ModelBase

    from corekit.actor import Actor


class Outcome(models.TextChoices):
    """How an act ended."""

    OK = "ok", "Done"
    ERROR = "error", "Failed"
    REFUSED = "refused", "Refused"


class Phase(models.TextChoices):
    """Where in an act its event was written. An intent without a result is an act that was cut off."""

    INTENT = "intent", "Before the act"
    RESULT = "result", "After the act"
    FACT = "fact", "Observed"


class ImmutableError(Exception):
    """Somebody tried to change or delete an audit row: a mistake in our own code."""


class EventQuerySet(models.QuerySet["Event"]):
    """Rows may be added and read, nothing else."""

    def visible_to(self, actor: Actor) -> EventQuerySet:
        """Return what an actor may see: all for the platform, its tenant's events for everybody else."""
        if actor.tenant_id is not None:
            return self.filter(tenant_id=actor.tenant_id)
        return self if actor.has("*") else self.none()

    def update(self, **_: object) -> NoReturn:
        """Refuse."""
        raise ImmutableError("Audit rows are never changed.")

    def delete(self) -> NoReturn:
        """Refuse."""
        raise ImmutableError("Audit rows are never deleted.")


class Event(models.Model):
    """One act or fact. It holds copies, no references, so that it outlives what it speaks of."""

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    tenant_id = models.UUIDField(null=True)
    code = models.CharField(max_length=64)
    at = models.DateTimeField(default=timezone.now)
    phase = models.CharField(max_length=8, choices=Phase, default=Phase.FACT)
    ref = models.CharField("intent", max_length=32, blank=True, default="")
    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    origin = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=64, blank=True, default="")
    object_type = models.CharField(max_length=32)
    object_id = models.CharField(max_length=128)
    generation = models.PositiveIntegerField(null=True)
    node_id = models.CharField(max_length=64, blank=True, default="")
    outcome = models.CharField(max_length=8, choices=Outcome, blank=True, default=Outcome.OK)
    tool_name = models.CharField(max_length=64, blank=True, default="")
    args_hash = models.CharField(max_length=64, blank=True, default="")
    args_shape = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    risk_score = models.PositiveSmallIntegerField(null=True)
    risk_reasons = models.JSONField(default=list)
    duration_ms = models.FloatField(null=True)
    details = models.JSONField(default=dict, encoder=DjangoJSONEncoder)

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = (
            models.Index(fields=("tenant_id", "-at", "-id"), name="audit_event_tenant_page"),
            models.Index(fields=("-at", "-id"), name="audit_event_page"),
            models.Index(fields=("object_id", "-at", "-id"), name="audit_event_object_page"),
            models.Index(fields=("code", "-at", "-id"), name="audit_event_code_page"),
        )
        constraints = (
            models.CheckConstraint(
                condition=models.Q(risk_score__isnull=True) | models.Q(risk_score__lte=100),
                name="audit_event_risk_0_to_100",
            ),
        )

    def __str__(self) -> str:
        return f"{self.code} {self.object_type} {self.object_id}"

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Insert the row. Raises ImmutableError when it exists already."""
        if not self._state.adding:
            raise ImmutableError("Audit rows are never changed.")
        super().save(force_insert=True, using=using)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> NoReturn:  # noqa: FBT001, FBT002
        """Refuse."""
        raise ImmutableError("Audit rows are never deleted.")


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
