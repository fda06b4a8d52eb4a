"""The REST API of the ledger: exports, proofs, checkpoints and the state of a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.response import Response

from audit import exports, selectors
from audit.api.serializers import AuditFilter
from audit.models import Chain, Checkpoint
from corekit.errors import NotFound
from corekit.web.fields import Query
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.streaming import streamed
from corekit.web.views import ApiView, PageQuery

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from django.http import StreamingHttpResponse
    from rest_framework.request import Request

    CheckpointModel = serializers.ModelSerializer[Checkpoint]
    Plain = serializers.Serializer[Any]
else:
    CheckpointModel = serializers.ModelSerializer
    Plain = serializers.Serializer

NEWEST_CHECKPOINT = Order(("-id",))
_LINES = 200
_PAGING = frozenset({"limit", "cursor", "order"})
_FORM = frozenset({"format", "proven"})


class ExportQuery(AuditFilter):
    """Which events to export, and how."""

    # An export has no pages, and the order of the chain.
    limit: Any = None
    cursor: Any = None
    order: Any = None
    format = serializers.ChoiceField(choices=sorted(exports.FORMATS), default="jsonl", help_text="JSON lines, or CSV.")
    proven = serializers.BooleanField(
        default=False, help_text="Leave out what is newer than the last checkpoint. JSON lines only."
    )


class ChainQuery(Query):
    """Whose chain."""

    tenant_id = serializers.UUIDField(required=False, help_text="For operators: a tenant's; without it the platform's.")


class CheckpointQuery(PageQuery):
    """Whose checkpoints."""

    tenant_id = ChainQuery().fields["tenant_id"]


class CheckpointSerializer(CheckpointModel):
    """The first `size` events of the chain have this root. `note` is signed; the rest repeats it."""

    class Meta:
        model = Checkpoint
        fields = ("id", "chain", "size", "root", "note", "key_id", "at")
        read_only_fields = fields


class ChainSerializer(Plain):
    """How far a chain is numbered, signed and verified."""

    name = serializers.CharField()
    size = serializers.IntegerField(help_text="How many events have a number.")
    head = serializers.CharField(help_text="The hash of the last one.")
    sealed_at = serializers.DateTimeField(allow_null=True)
    verified_size = serializers.IntegerField()
    verified_at = serializers.DateTimeField(allow_null=True)
    verified_as = serializers.CharField(help_text="The verdict of the last verification; empty before the first.")
    checkpoint = serializers.SerializerMethodField()

    @extend_schema_field(CheckpointSerializer(allow_null=True))
    def get_checkpoint(self, chain: Chain) -> Any:
        """Return the last checkpoint."""
        last = self.context["checkpoint"]
        return CheckpointSerializer(last).data if last else None


class StepsSerializer(Plain):
    """The path from one event to a root."""

    size = serializers.IntegerField(help_text="Of the checkpoint.")
    path = serializers.ListField(child=serializers.CharField(), help_text="Hashes, base64, from below.")


class ProofSerializer(Plain):
    """One event as a line of an export has it, with the checkpoint that covers it."""

    event = serializers.DictField()
    chain = serializers.CharField()
    seq = serializers.IntegerField()
    prev = serializers.CharField()
    hash = serializers.CharField()
    proof = StepsSerializer(allow_null=True)
    checkpoint = serializers.CharField(allow_null=True, help_text="The signed note; null before there is one.")


class Export(ApiView):
    """`/audit-events/export`."""

    @extend_schema(
        operation_id="export_audit_events",
        tags=["Audit"],
        summary="Export audit events",
        description="Needs the scope `audit:read`. The answer is a file of any size; it is an event itself.",
        parameters=[ExportQuery],
        responses={(200, media_type): OpenApiTypes.STR for media_type in exports.FORMATS.values()},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Stream the events that the filters let through."""
        query = self.query(ExportQuery)
        asked = {name: value for name, value in query.items() if name not in _FORM}
        form = query["format"]
        lines = exports.export(actor=self.actor, query=asked, form=form, proven=query["proven"])
        return streamed(request._request, lines, exports.FORMATS[form], f"audit.{form}")


class ChainView(ApiView):
    """`/audit-chain`."""

    @documented(
        "get_audit_chain",
        "Audit",
        "Show a chain's state",
        scope="audit:read",
        query=ChainQuery,
        answer=ChainSerializer,
    )
    def get(self, request: Request) -> Response:
        """Return the head of the chain, its last checkpoint and its last verification."""
        tenant_id = _tenant(self, self.query(ChainQuery))
        chain = selectors.chain_at(self.actor, tenant_id)
        if chain is None or self.actor.tenant_id not in {None, tenant_id}:
            raise NotFound("There is no such chain, or nothing of it is sealed yet.")
        last = selectors.checkpoints_at(self.actor, tenant_id).order_by("-size").first()
        return Response(ChainSerializer(chain, context={"checkpoint": last}).data)


class Checkpoints(ApiView):
    """`/audit-checkpoints`."""

    @documented_list(
        "list_audit_checkpoints",
        "Audit",
        "List signed checkpoints",
        item=CheckpointSerializer,
        scope="audit:read",
        query=CheckpointQuery,
    )
    def get(self, request: Request) -> Response:
        """List the checkpoints of one chain, newest first."""
        query = self.query(CheckpointQuery)
        rows = selectors.checkpoints_at(self.actor, _tenant(self, query))
        return self.page(rows, NEWEST_CHECKPOINT, CheckpointSerializer, query)


class Proof(ApiView):
    """`/audit-events/{event}/proof`."""

    @documented(
        "get_audit_event_proof",
        "Audit",
        "Prove that an event is in the ledger",
        scope="audit:read",
        answer=ProofSerializer,
    )
    def get(self, request: Request, event_id: str) -> Response:
        """Return the event with its place in the chain and its path to a signed root."""
        return Response(exports.proof_of(selectors.event_for(self.actor, event_id)))


def _tenant(view: ApiView, query: Mapping[str, Any]) -> str | None:
    """Return whose chain is meant, in hex; None for the platform's."""
    asked = cast("UUID | None", query.get("tenant_id"))
    return asked.hex if asked else view.actor.tenant_id
