"""The REST API of risk: thresholds, muted rules, levels and verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.response import Response

from audit import judging, thresholds
from audit.models import RiskLevel, RiskPolicy, RiskSuppression, Verdict, VerdictAction, VerdictState
from audit.risk.findings import band_of
from corekit import clock
from corekit.errors import NotFound
from corekit.web.fields import Body, Query, Text, WholeNumber
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView, PageQuery

if TYPE_CHECKING:
    from rest_framework.request import Request

    PolicyModel = serializers.ModelSerializer[RiskPolicy]
    SuppressionModel = serializers.ModelSerializer[RiskSuppression]
    VerdictModel = serializers.ModelSerializer[Verdict]
    Plain = serializers.Serializer[Any]
else:
    PolicyModel = SuppressionModel = VerdictModel = serializers.ModelSerializer
    Plain = serializers.Serializer

NEWEST = Order(("-created_at", "-id"))


class TenantQuery(Query):
    """For whom an operator asks."""

    tenant_id = serializers.UUIDField(required=False, help_text="For operators: whose it is.")


class PolicySerializer(PolicyModel):
    """A tenant's thresholds; null is never."""

    tenant = serializers.SerializerMethodField()

    class Meta:
        model = RiskPolicy
        fields = ("tenant", *thresholds.THRESHOLDS, "unassessable_tier")
        read_only_fields = fields

    def get_tenant(self, policy: RiskPolicy) -> str:
        """Return whose they are."""
        return _hex(policy.tenant_id)


class PolicyBody(Body):
    """All thresholds of a tenant."""

    flag_at = WholeNumber(minimum=1, maximum=100, allow_null=True, help_text="Flag acts of this score; null is never.")
    pause_at = WholeNumber(minimum=1, maximum=100, allow_null=True, help_text="Pause their sandbox.")
    cut_at = WholeNumber(
        minimum=1, maximum=100, allow_null=True, default=None, help_text="Cut its network; never without it."
    )
    void_at = WholeNumber(
        minimum=1, maximum=100, allow_null=True, default=None, help_text="Void its scoped tokens; never without it."
    )
    refuse_at = WholeNumber(minimum=1, maximum=100, allow_null=True, help_text="Refuse to run such code over REST.")
    unassessable_tier = serializers.ChoiceField(
        choices=("L2", "L3"), default="L2", help_text="What code needs that nobody could read."
    )


class SuppressionSerializer(SuppressionModel):
    """A rule that counts nothing until a date."""

    tenant = serializers.SerializerMethodField()

    class Meta:
        model = RiskSuppression
        fields = ("id", "tenant", "rule", "note", "until", "created_by", "created_at")
        read_only_fields = fields

    def get_tenant(self, row: RiskSuppression) -> str:
        """Return whose it is."""
        return _hex(row.tenant_id)


class NewSuppressionBody(Body):
    """What mutes a rule."""

    rule = Text(max_length=64)
    until = serializers.DateTimeField(help_text="At most a year away.")
    note = Text(max_length=500, help_text="Why.")


class VerdictSerializer(VerdictModel):
    """A judgement over one event that met a threshold."""

    tenant = serializers.SerializerMethodField()
    action = serializers.CharField(read_only=True, help_text=f"One of {', '.join(VerdictAction.values)}.")
    state = serializers.CharField(read_only=True, help_text=f"One of {', '.join(VerdictState.values)}.")
    reasons = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Verdict
        fields = (
            *("id", "tenant", "event_id", "sandbox_id", "generation", "action", "state", "score", "threshold"),
            *("reasons", "note", "decided_by", "created_at", "decided_at"),
        )
        read_only_fields = fields

    def get_tenant(self, verdict: Verdict) -> str:
        """Return whose it is."""
        return _hex(verdict.tenant_id)


class VerdictFilter(PageQuery):
    """Which verdicts to list."""

    state = serializers.ChoiceField(choices=VerdictState.values, required=False)
    action = serializers.ChoiceField(choices=VerdictAction.values, required=False)
    sandbox_id = Text(required=False, max_length=64)
    event_id = Text(required=False, max_length=32)


class OverrideBody(Body):
    """Why a verdict does not hold."""

    note = Text(max_length=1000)


class LevelSerializer(Plain):
    """How risky the acts of a sandbox or a tenant were of late."""

    id = serializers.CharField(source="subject_id")
    score = serializers.SerializerMethodField()
    band = serializers.SerializerMethodField()
    peak = serializers.IntegerField(help_text="The highest score so far.")
    rules = serializers.ListField(child=serializers.CharField())
    updated_at = serializers.DateTimeField()

    def get_score(self, level: RiskLevel) -> int:
        """Return what it counts now."""
        return round(judging.current_score(level, clock.now()))

    def get_band(self, level: RiskLevel) -> str:
        """Return the band of that."""
        return band_of(self.get_score(level))


class LevelsSerializer(Plain):
    """The highest levels."""

    tenants = LevelSerializer(many=True)
    sandboxes = LevelSerializer(many=True)


class Policy(ApiView):
    """`/risk-policy`."""

    @documented(
        "get_risk_policy",
        "Risk",
        "Show the risk thresholds",
        scope=thresholds.READ,
        query=TenantQuery,
        answer=PolicySerializer,
    )
    def get(self, request: Request) -> Response:
        """Return the tenant's thresholds, or the usual ones."""
        return Response(PolicySerializer(thresholds.policy_for(self.actor, **self.query(TenantQuery))).data)

    @documented(
        "set_risk_policy",
        "Risk",
        "Set the risk thresholds",
        scope=thresholds.WRITE,
        query=TenantQuery,
        body=PolicyBody,
        answer=PolicySerializer,
    )
    def put(self, request: Request) -> Response:
        """Replace the tenant's thresholds."""
        values = self.body(PolicyBody)
        policy = thresholds.set_policy(actor=self.actor, **self.query(TenantQuery), **values)
        return Response(PolicySerializer(policy).data)


class Suppressions(ApiView):
    """`/risk-suppressions`."""

    @documented_list(
        "list_risk_suppressions", "Risk", "List muted rules", item=SuppressionSerializer, scope=thresholds.READ
    )
    def get(self, request: Request) -> Response:
        """List muted rules, newest first, also those whose time is over."""
        return self.page(thresholds.suppressions_for(self.actor), NEWEST, SuppressionSerializer)

    @documented(
        "create_risk_suppression",
        "Risk",
        "Mute a rule",
        scope=thresholds.WRITE,
        query=TenantQuery,
        body=NewSuppressionBody,
        answer=SuppressionSerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Let a rule count nothing until a date. What it finds stays visible."""
        values = self.body(NewSuppressionBody)
        row = thresholds.suppress(actor=self.actor, **self.query(TenantQuery), **values)
        return Response(SuppressionSerializer(row).data, status=201)


class Suppression(ApiView):
    """`/risk-suppressions/{suppression}`."""

    @documented("delete_risk_suppression", "Risk", "Let a muted rule count again", scope=thresholds.WRITE, status=204)
    def delete(self, request: Request, suppression_id: str) -> Response:
        """Let the rule count from now on."""
        if not (suppression_id.isascii() and suppression_id.isdecimal() and len(suppression_id) < 19):
            raise NotFound("There is no such suppression.")
        thresholds.unsuppress(actor=self.actor, suppression_id=int(suppression_id))
        return Response(status=204)


class Verdicts(ApiView):
    """`/verdicts`."""

    @documented_list(
        "list_verdicts", "Risk", "List verdicts", item=VerdictSerializer, scope=thresholds.READ, query=VerdictFilter
    )
    def get(self, request: Request) -> Response:
        """List verdicts, newest first."""
        query = self.query(VerdictFilter)
        chosen = {name: query[name] for name in ("state", "action", "sandbox_id", "event_id") if name in query}
        return self.page(thresholds.verdicts_for(self.actor).filter(**chosen), NEWEST, VerdictSerializer, query)


class Override(ApiView):
    """`/verdicts/{verdict}/override`."""

    @documented(
        "override_verdict",
        "Risk",
        "Override a verdict",
        scope=thresholds.WRITE,
        body=OverrideBody,
        answer=VerdictSerializer,
    )
    def post(self, request: Request, verdict_id: str) -> Response:
        """Say that a verdict does not hold. A sandbox that it paused is resumed as any other."""
        note = self.body(OverrideBody)["note"]
        verdict = thresholds.override_verdict(actor=self.actor, verdict_id=verdict_id, note=note)
        return Response(VerdictSerializer(verdict).data)


class Levels(ApiView):
    """`/risk`."""

    @documented("get_risk", "Risk", "Show the risk levels", scope=thresholds.READ, answer=LevelsSerializer)
    def get(self, request: Request) -> Response:
        """Return the highest levels of tenants and sandboxes, as they count now."""
        found = {
            "tenants": thresholds.levels_for(self.actor, judging.TENANT),
            "sandboxes": thresholds.levels_for(self.actor, judging.SANDBOX),
        }
        return Response(LevelsSerializer(found).data)


def _hex(tenant_id: UUID | str) -> str:
    return UUID(str(tenant_id)).hex
