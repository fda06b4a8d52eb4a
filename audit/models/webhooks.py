"""Webhooks: where a tenant wants its events to be sent, and every attempt to do so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Q
from django.utils import timezone

from corekit.ids import new_event_id

if TYPE_CHECKING:
    from corekit.actor import Actor


class Webhook(models.Model):
    """A place that gets events. Without `codes` all of them; `min_score` leaves out what scores less.

    `secret` and `previous_secret` are encrypted; the previous one signs beside the new one until
    `previous_until`. `position` is the seal up to which deliveries were made.
    """

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    tenant_id = models.UUIDField(null=True)
    url = models.CharField(max_length=2000)
    description = models.CharField(max_length=200, blank=True, default="")
    codes = models.JSONField(default=list)
    min_score = models.PositiveSmallIntegerField(null=True)
    secret = models.CharField(max_length=400)
    previous_secret = models.CharField(max_length=400, blank=True, default="")
    previous_until = models.DateTimeField(null=True)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=200, blank=True, default="")
    failing_since = models.DateTimeField(null=True)
    position = models.BigIntegerField(default=0)
    created_by = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (models.Index(fields=("tenant_id", "-created_at", "-id"), name="audit_webhook_page"),)

    def __str__(self) -> str:
        return self.url

    @classmethod
    def visible_to(cls, actor: Actor) -> models.QuerySet[Webhook]:
        """Return what an actor may see: all for the platform, its tenant's webhooks for everybody else."""
        if actor.tenant_id is not None:
            return cls.objects.filter(tenant_id=actor.tenant_id)
        return cls.objects.all() if actor.has("*") else cls.objects.none()


class DeliveryState(models.TextChoices):
    """Where a delivery is."""

    WAITING = "waiting", "Waiting"
    DELIVERED = "delivered", "Delivered"
    FAILED = "failed", "Given up"


class Delivery(models.Model):
    """One event on its way to one webhook, and how the last attempt went. `test` ones were sent by hand."""

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event_id = models.CharField(max_length=32)
    code = models.CharField(max_length=64)
    test = models.BooleanField(default=False)
    state = models.CharField(max_length=16, choices=DeliveryState, default=DeliveryState.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(default=timezone.now)
    status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=500, blank=True, default="")
    duration_ms = models.FloatField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("next_at",), condition=Q(state="waiting"), name="audit_delivery_due"),
            models.Index(fields=("webhook", "-created_at", "-id"), name="audit_delivery_page"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=("webhook", "event_id"), condition=Q(test=False), name="audit_delivery_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.code} {self.state}"
