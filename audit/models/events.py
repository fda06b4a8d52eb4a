"""Events: what happened, as it was written down at that time. They never change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
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


class Decision(models.TextChoices):
    """What a policy said to the act, where one was asked."""

    ALLOW = "allow", "Allowed"
    DENY = "deny", "Denied"


class Band(models.TextChoices):
    """The band of a risk score: 0-24, 25-49, 50-74, 75-100."""

    LOW = "low", "Low"
    MEDIUM = "medium", "Medium"
    HIGH = "high", "High"
    CRITICAL = "critical", "Critical"


class ImmutableError(Exception):
    """Somebody tried to change or delete a row that is kept as it is: a mistake in our own code."""


Row = TypeVar("Row", bound=models.Model)


class AppendOnlyQuerySet(models.QuerySet[Row]):
    """Rows may be added and read, nothing else."""

    def update(self, **_: object) -> NoReturn:
        """Refuse."""
        raise ImmutableError("Audit rows are never changed.")

    def delete(self) -> NoReturn:
        """Refuse."""
        raise ImmutableError("Audit rows are never deleted.")


class AppendOnly(models.Model):
    """Base of rows that are written once. The database's triggers refuse the same, whoever asks."""

    class Meta:
        abstract = True

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


class EventQuerySet(AppendOnlyQuerySet["Event"]):
    """Events, as somebody may see them."""

    def visible_to(self, actor: Actor) -> EventQuerySet:
        """Return what an actor may see: all for the platform, its tenant's events for everybody else."""
        if actor.tenant_id is not None:
            return self.filter(tenant_id=actor.tenant_id)
        return self if actor.has("*") else self.none()


def _text(length: int) -> models.CharField[str, str]:
    return models.CharField(max_length=length, blank=True, default="")


def _object() -> models.JSONField[dict[str, object], dict[str, object]]:
    return models.JSONField(default=dict, encoder=DjangoJSONEncoder)


EGRESS_CODES = ("egress.closed", "egress.denied", "egress.dns_denied")
"""What is recorded of traffic: a flow that was let through at its end, a refused one, and a name that was not told."""


class Event(AppendOnly):
    """One act or fact. It holds copies, no references, so that it outlives what it speaks of.

    `at` is when it happened, by the clock of who saw it; `received_at` when this database got it. `producer` says
    which process wrote it (`web`, `worker`, `node:<id>`) and `producer_seq` its number there, where it counts.
    `arguments` never appear: `args_hash` is their HMAC under the tenant's key `args_key_id`, `args_shape` names and
    sizes. `risk_findings` are the reasons of `risk_score`, `risk_seed` the judgement of the ruleset seed-v1 beside
    it. `context` holds the objects `net`, `secret`, `agent` of events that have them.
    """

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    tenant_id = models.UUIDField(null=True)
    code = models.CharField(max_length=64)
    at = models.DateTimeField(default=timezone.now)
    received_at = models.DateTimeField(default=timezone.now)
    phase = models.CharField(max_length=8, choices=Phase, default=Phase.FACT)
    ref = models.CharField("intent", max_length=32, blank=True, default="")
    producer = _text(80)
    producer_seq = models.BigIntegerField(null=True)

    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    actor_auth = _text(16)
    on_behalf_of = _text(64)
    token_id = _text(64)
    origin = models.GenericIPAddressField(null=True)
    user_agent = _text(200)

    request_id = _text(64)
    trace_id = _text(32)
    span_id = _text(16)
    run_id = _text(64)

    object_type = models.CharField(max_length=32)
    object_id = models.CharField(max_length=128)
    object_name = _text(200)
    sandbox_id = _text(64)
    generation = models.PositiveIntegerField(null=True)
    tier = _text(16)
    policy_version = _text(64)
    node_id = _text(64)

    outcome = models.CharField(max_length=8, choices=Outcome, blank=True, default=Outcome.OK)
    decision = models.CharField(max_length=8, choices=Decision, blank=True, default="")
    status = models.PositiveIntegerField(null=True)
    reason = _text(200)
    duration_ms = models.FloatField(null=True)

    tool_name = _text(64)
    args_hash = _text(64)
    args_key_id = _text(16)
    args_size = models.PositiveBigIntegerField(null=True)
    args_shape = _object()

    risk_score = models.PositiveSmallIntegerField(null=True)
    risk_band = models.CharField(max_length=8, choices=Band, blank=True, default="")
    risk_tier = _text(2)
    risk_ruleset = _text(40)
    risk_reasons = models.JSONField(default=list)
    risk_findings = models.JSONField(default=list)
    risk_seed = _object()

    host = _text(255)
    context = _object()
    details = _object()

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = (
            models.Index(fields=("tenant_id", "-at", "-id"), name="audit_event_tenant_page"),
            models.Index(fields=("-at", "-id"), name="audit_event_page"),
            models.Index(fields=("object_id", "-at", "-id"), name="audit_event_object_page"),
            models.Index(fields=("code", "-at", "-id"), name="audit_event_code_page"),
            models.Index(fields=("actor_id", "-at", "-id"), name="audit_event_actor"),
            models.Index(fields=("sandbox_id", "-at", "-id"), condition=~Q(sandbox_id=""), name="audit_event_sandbox"),
            models.Index(fields=("tenant_id", "-at", "-id"), condition=Q(risk_score__gte=50), name="audit_event_risky"),
            models.Index(fields=("tenant_id", "-at", "-id"), condition=Q(decision="deny"), name="audit_event_denied"),
            models.Index(
                fields=("tenant_id", "-at", "-id"), condition=Q(code__in=EGRESS_CODES), name="audit_event_egress"
            ),
            models.Index(fields=("host", "-at", "-id"), condition=~Q(host=""), name="audit_event_host"),
            models.Index(fields=("token_id", "-at", "-id"), condition=~Q(token_id=""), name="audit_event_token"),
        )
        constraints = (
            models.CheckConstraint(
                condition=models.Q(risk_score__isnull=True) | models.Q(risk_score__lte=100),
                name="audit_event_risk_0_to_100",
            ),
        )

    def __str__(self) -> str:
        return f"{self.code} {self.object_type} {self.object_id}"
