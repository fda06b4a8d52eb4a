"""The REST API of the encrypted copies of arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.response import Response

from audit import actions
from audit.api.risk import TenantQuery
from corekit.web.fields import Body, Flag, Text, WholeNumber
from corekit.web.schema import documented
from corekit.web.views import ApiView

if TYPE_CHECKING:
    from rest_framework.request import Request

    from audit.models import LedgerPolicy

    Plain = serializers.Serializer[Any]
else:
    Plain = serializers.Serializer


class CopiesSerializer(Plain):
    """Whether copies of arguments are kept, and for how long."""

    keep = serializers.BooleanField(source="keep_arguments")
    days = serializers.IntegerField(source="arguments_days")


class CopiesBody(Body):
    """Whether to keep copies of arguments, and for how long."""

    keep = Flag()
    days = WholeNumber(minimum=1, maximum=actions.LONGEST_DAYS, default=14)


class OpenBody(Body):
    """Why somebody needs to see the arguments."""

    reason = Text(max_length=actions.MAX_REASON)


class ArgumentsSerializer(Plain):
    """The arguments of one event."""

    arguments = serializers.DictField()


class Copies(ApiView):
    """`/audit-argument-copies`."""

    @documented(
        "get_argument_copies",
        "Audit",
        "Show whether copies of arguments are kept",
        scope="audit:read",
        query=TenantQuery,
        answer=CopiesSerializer,
    )
    def get(self, request: Request) -> Response:
        """Return whether the gateway keeps encrypted copies of arguments, and for how many days."""
        return _shown(actions.argument_copies_for(self.actor, **self.query(TenantQuery)))

    @documented(
        "set_argument_copies",
        "Audit",
        "Say whether copies of arguments are kept",
        scope=actions.BREAK_GLASS,
        query=TenantQuery,
        body=CopiesBody,
        answer=CopiesSerializer,
    )
    def put(self, request: Request) -> Response:
        """Keep encrypted copies of the arguments of sandboxes that start from now on, or no more."""
        wanted = self.body(CopiesBody)
        return _shown(actions.set_argument_copies(actor=self.actor, **self.query(TenantQuery), **wanted))


class Arguments(ApiView):
    """`/audit-events/{event}/arguments`."""

    @documented(
        "open_arguments",
        "Audit",
        "Open the arguments of an event",
        scope=actions.BREAK_GLASS,
        body=OpenBody,
        answer=ArgumentsSerializer,
    )
    def post(self, request: Request, event_id: str) -> Response:
        """Return what was kept of an event's arguments. That somebody asked, and why, is an event."""
        reason = self.body(OpenBody)["reason"]
        found = actions.open_arguments(actor=self.actor, event_id=event_id, reason=reason)
        return Response({"arguments": found})


def _shown(policy: LedgerPolicy) -> Response:
    return Response(CopiesSerializer(policy).data)
