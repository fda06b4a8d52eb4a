"""The REST API of services: what scoped tokens are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.response import Response

from corekit.web.fields import Body, Flag, Text, WholeNumber
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView
from tenants.broker import catalogue, services
from tenants.tokenmodels import BrokerService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rest_framework.request import Request

    ServiceModel = serializers.ModelSerializer[BrokerService]
else:
    ServiceModel = serializers.ModelSerializer

BY_NAME = Order(("name", "id"))
_TAG = "Secrets"
_MICRO = 1_000_000


class ServiceSerializer(ServiceModel):
    """A service: where requests go, and in which slot the secret travels."""

    tenant = serializers.SerializerMethodField()
    headers = serializers.ListField(child=serializers.CharField(), read_only=True)
    usd_per_million_tokens = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()
    client_url = serializers.SerializerMethodField()
    apis = serializers.SerializerMethodField()

    class Meta:
        model = BrokerService
        fields = (
            *("id", "tenant", "name", "kind", "base_url", "slot", "headers", "private", "usd_per_million_tokens"),
            *("url", "client_url", "apis", "version", "updated_at", "updated_by"),
        )
        read_only_fields = fields

    def get_tenant(self, row: BrokerService) -> str | None:
        """Return whose it is; null for the platform's."""
        return row.tenant_id.hex if row.tenant_id else None

    def get_usd_per_million_tokens(self, row: BrokerService) -> float:
        """Return what a million tokens cost at most; 0 where nobody said it."""
        return row.microusd_per_mtok / _MICRO

    def get_url(self, row: BrokerService) -> str:
        """Return where sandboxes reach it."""
        return catalogue.service_of(row).broker_url

    def get_client_url(self, row: BrokerService) -> str:
        """Return the base URL for its vendor's own client."""
        return catalogue.service_of(row).client_url

    def get_apis(self, row: BrokerService) -> list[str]:
        """Return the names that `allowed_apis` takes for it."""
        return sorted(name for name, api in catalogue.APIS.items() if api.service == row.name)


class ServiceBody(Body):
    """What a service is."""

    base_url = Text(max_length=services.MAX_URL, help_text="https, a host name, and a path if need be.")
    kind = serializers.ChoiceField(choices=catalogue.KINDS, default="generic")
    slot = Text(
        max_length=80, default="bearer", help_text="Where the secret travels: bearer, basic, header:NAME or query:NAME."
    )
    headers = serializers.ListField(
        child=Text(max_length=64),
        default=list,
        max_length=services.MAX_HEADERS,
        help_text="Headers of sandboxes that go along beside the usual ones, in lower case.",
    )
    private = Flag(default=False, help_text="For operators: it may have an address that is not public.")
    usd_per_million_tokens = serializers.FloatField(
        min_value=0, max_value=services.MOST_USD, default=0, help_text="The dearest of its models; for budgets in USD."
    )


class NewServiceBody(ServiceBody):
    """A service that is to be made."""

    name = Text(max_length=63, help_text="1 to 63 characters of a-z, 0-9 and dashes inside; never changes.")


class ReplaceServiceBody(ServiceBody):
    """What a service is to be from now on."""

    version = WholeNumber(minimum=1, help_text="The version that you have seen.")


def _description(body: Mapping[str, Any]) -> services.Description:
    values = dict(body)
    values["usd_per_mtok"] = values.pop("usd_per_million_tokens")
    return services.Description(**values)


class Services(ApiView):
    """`/services`."""

    @documented_list("list_services", _TAG, "List services", item=ServiceSerializer, scope=services.READ)
    def get(self, request: Request) -> Response:
        """List the platform's services and the tenant's own by name; operators see those of all tenants."""
        return self.page(services.services_for(self.actor), BY_NAME, ServiceSerializer)

    @documented(
        "create_service",
        _TAG,
        "Create a service",
        scope=services.WRITE,
        body=NewServiceBody,
        answer=ServiceSerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Create a service of the tenant; an operator creates one of the platform."""
        body = dict(self.body(NewServiceBody))
        row = services.create(actor=self.actor, name=body.pop("name"), wanted=_description(body))
        return Response(ServiceSerializer(row).data, status=201)


class Service(ApiView):
    """`/services/{service}`: by name or id."""

    @documented("get_service", _TAG, "Show a service", scope=services.READ, answer=ServiceSerializer)
    def get(self, request: Request, service_id: str) -> Response:
        """Return one service."""
        return Response(ServiceSerializer(services.service_for(self.actor, service_id)).data)

    @documented(
        "replace_service",
        _TAG,
        "Replace a service",
        scope=services.WRITE,
        body=ReplaceServiceBody,
        answer=ServiceSerializer,
    )
    def put(self, request: Request, service_id: str) -> Response:
        """Make a service what the body says, for tokens that were issued for it too; 409 unless `version` is its."""
        row = services.service_for(self.actor, service_id, services.WRITE)
        body = dict(self.body(ReplaceServiceBody))
        row = services.replace(actor=self.actor, service=row, version=body.pop("version"), wanted=_description(body))
        return Response(ServiceSerializer(row).data)

    @documented("delete_service", _TAG, "Delete a service", scope=services.WRITE)
    def delete(self, request: Request, service_id: str) -> Response:
        """Delete a service; tokens that were issued for it are refused. The ready ones stay."""
        row = services.service_for(self.actor, service_id, services.WRITE)
        services.delete(actor=self.actor, service=row)
        return Response(status=204)
