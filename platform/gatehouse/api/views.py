"""The path of the REST API that belongs to no app: who calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework import serializers
from rest_framework.response import Response

from corekit.web.schema import documented
from corekit.web.views import ApiView

if TYPE_CHECKING:
    from rest_framework.request import Request


class MeSerializer(serializers.Serializer):  # type: ignore[type-arg]
    """Who calls, as the platform sees them."""

    kind = serializers.CharField(help_text="`api_key`, or `user` for an operator.")
    id = serializers.CharField()
    name = serializers.CharField()
    tenant = serializers.CharField(source="tenant_id", allow_null=True, help_text="null for operators.")
    scopes = serializers.SerializerMethodField()

    def get_scopes(self, actor: object) -> list[str]:
        """Return the scopes; `*` is every one."""
        return sorted(actor.scopes)  # type: ignore[attr-defined]


class Me(ApiView):
    """`GET /me`."""

    @documented("me", "Access", "Who calls", answer=MeSerializer)
    def get(self, request: Request) -> Response:
        """Return who calls, for which tenant and with which scopes."""
        return Response(MeSerializer(self.actor).data)
