"""The REST API of the policy time machine: what a policy would have changed, and what a sandbox needs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.response import Response

from corekit.errors import InvalidInput
from corekit.web.fields import Query, Text, WholeNumber
from corekit.web.schema import documented
from corekit.web.views import ApiView
from sandboxes import flows
from sandboxes.api.views import OfSandbox
from tenants import selectors as tenant_selectors
from tenants.api.networkshapes import NetworkSpecBody

if TYPE_CHECKING:
    from rest_framework.request import Request

    from tenants.models import Tenant

    Plain = serializers.Serializer[Any]
else:
    Plain = serializers.Serializer

_TAG = "Networks"
_SCOPES = "networks:read` and `audit:read"
_HOURS_SAID = f"Must be a whole number from 1 to {flows.MAX_HOURS}."


class ReplayBody(NetworkSpecBody):
    """A policy to judge recorded traffic by: its fields, or the name of one."""

    policy = Text(max_length=63, required=False, help_text="The name of a policy, in place of its fields.")
    hours = WholeNumber(minimum=1, maximum=flows.MAX_HOURS, default=24, help_text="How far back to look.")
    tenant_id = Text(max_length=36, required=False, help_text="For operators, who must name one.")


class DraftQuery(Query):
    """How far back to look."""

    hours = serializers.IntegerField(
        min_value=1,
        max_value=flows.MAX_HOURS,
        default=24,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value", "max_string_length"), _HOURS_SAID),
    )


class CountedSerializer(Plain):
    """A host and port, and how often they were seen."""

    host = serializers.CharField()
    port = serializers.IntegerField(allow_null=True, help_text="null where only the name was asked for.")
    count = serializers.IntegerField()
    reason = serializers.CharField(help_text="Why it is stopped; empty where it is let through.")
    rule = serializers.CharField(help_text="The entry that decides.")
    layer = serializers.CharField(help_text="Whose entry it is.")


class ReplaySerializer(Plain):
    """What a policy would have changed."""

    events = serializers.IntegerField(help_text="How many recorded events this is from.")
    cut = serializers.BooleanField(help_text="Whether there was more than is told of here.")
    broken = CountedSerializer(many=True, help_text="What was let through and would be stopped.")
    opened = CountedSerializer(many=True, help_text="What was stopped and would be let through.")
    still_allowed = serializers.IntegerField()
    still_denied = serializers.IntegerField()


class DraftedBodySerializer(Plain):
    """The fields of a policy."""

    mode = serializers.CharField()
    egress = serializers.ListField(child=serializers.CharField())
    ingress = serializers.ListField(child=serializers.IntegerField())
    dns = serializers.BooleanField()


class DraftSerializer(Plain):
    """The least policy that lets through what a sandbox did and tried."""

    body = DraftedBodySerializer(help_text="Send it with a name to create the policy.")
    events = serializers.IntegerField(help_text="How many recorded events this is from.")
    cut = serializers.BooleanField(help_text="Whether there was more than is told of here.")
    tried = serializers.ListField(
        child=serializers.CharField(), help_text="Entries for which nothing was let through so far: look at them twice."
    )
    left_out = CountedSerializer(many=True, help_text="What no policy should let through, or whose port is not known.")


class Replay(ApiView):
    """`/network-replay`."""

    @documented(
        "replay_network_policy",
        _TAG,
        "Replay recorded traffic against a policy",
        scope=_SCOPES,
        body=ReplayBody,
        answer=ReplaySerializer,
    )
    def post(self, request: Request) -> Response:
        """Say what a policy would have stopped and opened of what the tenant's sandboxes did. Nothing is kept."""
        body = dict(self.body(ReplayBody))
        hours, policy = body.pop("hours"), body.pop("policy", None)
        tenant = self._tenant(body.pop("tenant_id", None))
        for name in body if policy is not None else ():
            raise InvalidInput(f"{name}: Give the policy's name or its fields, not both.", field=name)
        found = flows.replay(self.actor, tenant, policy=policy, body=body, window=timedelta(hours=hours))
        return Response(ReplaySerializer(found).data)

    def _tenant(self, named: str | None) -> Tenant:
        wanted = self.actor.tenant_id if named is None else named
        if wanted is None:
            raise InvalidInput("tenant_id: Say whose traffic it is.", field="tenant_id")
        return tenant_selectors.tenant_for(self.actor, wanted, "networks:read")


class Draft(OfSandbox):
    """`/sandboxes/{sandbox}/network/draft`."""

    @documented(
        "draft_network_policy",
        _TAG,
        "Draft the least policy for a sandbox",
        scope=f"sandboxes:read`, `{_SCOPES}",
        query=DraftQuery,
        answer=DraftSerializer,
    )
    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return the least policy that would have let through what a sandbox did, ended ones too."""
        hours = self.query(DraftQuery)["hours"]
        found = flows.learn(self.actor, sandbox_id, window=timedelta(hours=hours))
        return Response(DraftSerializer(found).data)
