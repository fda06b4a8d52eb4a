"""What risk scores lead to: thresholds, suppressions, levels and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Q
from django.utils import timezone

from corekit.ids import new_event_id

if TYPE_CHECKING:
    from corekit.actor import Actor


class RiskPolicy(models.Model):
    """A tenant's thresholds: scores from which an event is flagged, its sandbox paused, cut off or without its tokens.

    None is never. `unassessable_tier` is the least tier of code that nobody could judge: L2 or L3.
    """

    tenant_id = models.UUIDField(primary_key=True)
    flag_at = models.PositiveSmallIntegerField(null=True, default=75)
    pause_at = models.PositiveSmallIntegerField(null=True, default=None)
    cut_at = models.PositiveSmallIntegerField(null=True, default=None)
    void_at = models.PositiveSmallIntegerField(null=True, default=None)
    refuse_at = models.PositiveSmallIntegerField(null=True, default=None)
    unassessable_tier = models.CharField(max_length=2, default="L2")

    def __str__(self) -> str:
        return self.tenant_id.hex


class RiskSuppression(models.Model):
    """A rule that a tenant does not want to hear of until a date, and why."""

    tenant_id = models.UUIDField(db_index=True)
    rule = models.CharField(max_length=64)
    note = models.CharField(max_length=500)
    until = models.DateTimeField()
    created_by = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.rule


class RiskLevel(models.Model):
    """The risk of a sandbox or a tenant, from its events: what is old counts less.

    `score` is right at `updated_at` and halves with the time since. `rules` are the ids that weigh most in it.
    """

    kind = models.CharField(max_length=16)
    subject_id = models.CharField(max_length=64)
    tenant_id = models.UUIDField(null=True)
    score = models.FloatField(default=0)
    peak = models.PositiveSmallIntegerField(default=0)
    rules = models.JSONField(default=list)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("kind", "subject_id"), name="audit_risklevel_once"),)
        indexes = (models.Index(fields=("tenant_id", "kind", "-score"), name="audit_risklevel_top"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.subject_id}"


class VerdictAction(models.TextChoices):
    """What a threshold asks for."""

    FLAG = "flag", "Flag"
    PAUSE = "pause", "Pause the sandbox"
    CUT = "cut", "Cut its network"
    VOID = "void", "Void its scoped tokens"


class VerdictState(models.TextChoices):
    """Where a verdict is. `pending` waits for who carries it out."""

    PENDING = "pending", "Pending"
    DONE = "done", "Carried out"
    FAILED = "failed", "Not possible"
    OVERRIDDEN = "overridden", "Overridden"


class Verdict(models.Model):
    """A judgement over one event that met a threshold. The audit judges; `sandboxes.actions` acts."""

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    tenant_id = models.UUIDField()
    event_id = models.CharField(max_length=32)
    sandbox_id = models.CharField(max_length=64, blank=True, default="")
    generation = models.PositiveIntegerField(null=True)
    action = models.CharField(max_length=8, choices=VerdictAction)
    state = models.CharField(max_length=16, choices=VerdictState, default=VerdictState.PENDING)
    score = models.PositiveSmallIntegerField()
    threshold = models.PositiveSmallIntegerField()
    reasons = models.JSONField(default=list)
    note = models.CharField(max_length=1000, blank=True, default="")
    decided_by = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("created_at",), condition=Q(state="pending"), name="audit_verdict_pending"),
            models.Index(fields=("tenant_id", "-created_at", "-id"), name="audit_verdict_page"),
            models.Index(fields=("event_id",), name="audit_verdict_event"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(state__in=VerdictState.values), name="audit_verdict_state"),
            # The spool delivers events again: judging one twice must not act twice.
            models.UniqueConstraint(fields=("event_id", "action"), name="audit_verdict_once"),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.sandbox_id} {self.state}"

    @classmethod
    def visible_to(cls, actor: Actor) -> models.QuerySet[Verdict]:
        """Return what an actor may see: all for the platform, its tenant's verdicts for everybody else."""
        if actor.tenant_id is not None:
            return cls.objects.filter(tenant_id=actor.tenant_id)
        return cls.objects.all() if actor.has("*") else cls.objects.none()
