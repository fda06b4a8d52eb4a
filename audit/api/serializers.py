"""What the REST API takes and answers about events and operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers

from audit import registry
from audit.filters import WITHIN
from audit.models import Band, Decision, Event, Operation, OperationState, Outcome, Phase
from corekit.web.fields import Text
from corekit.web.views import PageQuery

if TYPE_CHECKING:
    EventModel = serializers.ModelSerializer[Event]
    OperationModel = serializers.ModelSerializer[Operation]
    Plain = serializers.Serializer[Any]
else:
    EventModel = OperationModel = serializers.ModelSerializer
    Plain = serializers.Serializer


class ActorSerializer(Plain):
    """Who acted: an id, and the name at that time."""

    kind = serializers.CharField(source="actor_kind")
    id = serializers.CharField(source="actor_id")
    name = serializers.CharField(source="actor_name")


class ObjectSerializer(Plain):
    """What it was done to."""

    type = serializers.CharField(source="object_type")
    id = serializers.CharField(source="object_id")


class EventSerializer(EventModel):
    """One act or fact. Arguments are there as a keyed hash and a shape only."""

    tenant = serializers.SerializerMethodField()
    message = serializers.SerializerMethodField()
    severity = serializers.SerializerMethodField()
    actor = ActorSerializer(source="*", read_only=True)
    object = ObjectSerializer(source="*", read_only=True)
    outcome = serializers.CharField(read_only=True, help_text=f"One of {', '.join(Outcome.values)}, or empty.")
    phase = serializers.CharField(read_only=True, help_text=f"One of {', '.join(Phase.values)}.")
    details = serializers.DictField(read_only=True)
    args_shape = serializers.DictField(read_only=True)
    risk_reasons = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Event
        fields = (
            *("id", "at", "code", "severity", "message", "tenant", "actor", "object", "origin", "request_id"),
            *("phase", "ref", "outcome", "decision", "reason", "generation", "node_id"),
            *("tool_name", "args_hash", "args_shape"),
            *("risk_score", "risk_reasons", "duration_ms", "details"),
        )
        read_only_fields = fields

    def get_tenant(self, event: Event) -> str | None:
        """Return whose event it is; None for the platform's own."""
        return event.tenant_id.hex if event.tenant_id else None

    def get_message(self, event: Event) -> str:
        """Return the event as one sentence."""
        return registry.sentence(event.code, actor=event.actor_name, target=event.object_id)

    def get_severity(self, event: Event) -> str:
        """Return info, notice, warning or critical."""
        return registry.severity_of(event.code, event.reason)


class EventFilter(PageQuery):
    """Which events to list."""

    order = serializers.ChoiceField(choices=("desc", "asc"), default="desc", help_text="Newest first without it.")
    code = Text(required=False, max_length=64, help_text="One code, or with a `*` at its end all that begin so.")
    object_type = Text(required=False, max_length=32)
    object_id = Text(required=False, max_length=128)
    actor = Text(required=False, max_length=200, help_text="Who acted: an id, or the name at that time.")
    actor_id = Text(required=False, max_length=64)
    sandbox_id = Text(required=False, max_length=64, help_text="In or to which sandbox.")
    host = Text(required=False, max_length=255, help_text="Which host name was asked for.")
    token_id = Text(required=False, max_length=64)
    outcome = serializers.ChoiceField(choices=Outcome.values, required=False)
    decision = serializers.ChoiceField(choices=Decision.values, required=False)
    phase = serializers.ChoiceField(choices=Phase.values, required=False)
    risk_at_least = serializers.IntegerField(min_value=0, max_value=100, required=False)
    band = serializers.ChoiceField(choices=Band.values, required=False)
    within = serializers.ChoiceField(choices=list(WITHIN), required=False, help_text="Not longer ago than this.")
    since = serializers.DateTimeField(required=False, help_text="At this time or later.")
    until = serializers.DateTimeField(required=False, help_text="Before this time.")


class AuditFilter(EventFilter):
    """Which events of which tenant to list."""

    tenant_id = serializers.UUIDField(required=False, help_text="For operators: one tenant's events.")


class OperationSerializer(OperationModel):
    """One long task."""

    tenant = serializers.SerializerMethodField()
    actor = ActorSerializer(source="*", read_only=True)
    object = ObjectSerializer(source="*", read_only=True)
    state = serializers.CharField(read_only=True, help_text=f"One of {', '.join(OperationState.values)}.")
    progress = serializers.DictField(read_only=True)
    result = serializers.DictField(read_only=True)

    class Meta:
        model = Operation
        fields = (
            *("id", "type", "state", "tenant", "object", "actor", "progress", "result", "error"),
            *("created_at", "updated_at", "finished_at"),
        )
        read_only_fields = fields

    def get_tenant(self, operation: Operation) -> str | None:
        """Return whose operation it is; None for the platform's own."""
        return operation.tenant_id.hex if operation.tenant_id else None
