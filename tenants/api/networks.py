"""The REST API of network policies, bundles, and what operators set above them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.response import Response

from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView
from tenants import selectors as tenant_selectors
from tenants.api import networkshapes as shapes
from tenants.api.views import OfTenant
from tenants.networks import actions, checking, selectors
from tenants.networks.compiling import network_of

if TYPE_CHECKING:
    from rest_framework.request import Request

BY_NAME = Order(("name", "id"))
BY_BUNDLE = Order(("name",))
NEWEST_VERSION = Order(("-version",))
_TAG = "Networks"


class Policies(ApiView):
    """`/network-policies`."""

    @documented_list(
        "list_network_policies", _TAG, "List network policies", item=shapes.NetworkPolicySerializer, scope=actions.READ
    )
    def get(self, request: Request) -> Response:
        """List the platform's policies and the tenant's own by name; operators see those of all tenants."""
        return self.page(selectors.policies_for(self.actor), BY_NAME, shapes.NetworkPolicySerializer)

    @documented(
        "create_network_policy",
        _TAG,
        "Create a network policy",
        scope=actions.WRITE,
        body=shapes.NewPolicyBody,
        answer=shapes.SavedNetworkPolicySerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Create a policy of the tenant; an operator creates one of the platform. The answer holds the warnings."""
        body = dict(self.body(shapes.NewPolicyBody))
        saved = actions.create_policy(
            actor=self.actor, tenant=selectors.tenant_of(self.actor), name=body.pop("name"), body=body
        )
        return Response(shapes.saved(saved), status=201)


class Check(ApiView):
    """`/network-policies/check`."""

    @documented(
        "check_network_policy",
        _TAG,
        "Check a policy and try a host",
        scope=actions.READ,
        body=shapes.CheckBody,
        answer=shapes.NetworkCheckedSerializer,
    )
    def post(self, request: Request) -> Response:
        """Say all that is wrong with a policy as it is typed, and what it says about a host. Nothing is kept."""
        body = dict(self.body(shapes.CheckBody))
        host, port, name = body.pop("host", None), body.pop("port"), body.pop("policy", None)
        if name is not None:
            body = selectors.body_of(selectors.policy_for(self.actor, name), body)
        found = checking.check(
            selectors.tenant_to_check(self.actor),
            body=body,
            # What an operator wrote is no mistake of who looks at it.
            operator=name is not None or self.actor.has(actions.OPERATE),
            host=host,
            port=port,
        )
        return Response(shapes.NetworkCheckedSerializer(found).data)


class Policy(ApiView):
    """`/network-policies/{policy}`: by name or id."""

    @documented(
        "get_network_policy",
        _TAG,
        "Show a network policy",
        scope=actions.READ,
        answer=shapes.WholeNetworkPolicySerializer,
    )
    def get(self, request: Request, policy_id: str) -> Response:
        """Return a policy with what its bundles stand for now."""
        chosen = selectors.policy_for(self.actor, policy_id)
        return Response(shapes.WholeNetworkPolicySerializer(chosen).data)

    @documented(
        "replace_network_policy",
        _TAG,
        "Replace a network policy",
        scope=actions.WRITE,
        body=shapes.ReplacePolicyBody,
        answer=shapes.SavedNetworkPolicySerializer,
    )
    def put(self, request: Request, policy_id: str) -> Response:
        """Make a policy what the body says, for running sandboxes too; 409 unless `version` is the one it has."""
        chosen = selectors.policy_for(self.actor, policy_id, actions.WRITE)
        body = dict(self.body(shapes.ReplacePolicyBody))
        saved = actions.replace_policy(actor=self.actor, policy=chosen, version=body.pop("version"), body=body)
        return Response(shapes.saved(saved))

    @documented("delete_network_policy", _TAG, "Delete a network policy", scope=actions.WRITE)
    def delete(self, request: Request, policy_id: str) -> Response:
        """Delete a policy. What runs with it keeps it; 409 while it is a default or a ceiling."""
        actions.delete_policy(actor=self.actor, policy=selectors.policy_for(self.actor, policy_id, actions.WRITE))
        return Response(status=204)


class Versions(ApiView):
    """`/network-policies/{policy}/versions`."""

    @documented_list(
        "list_network_policy_versions",
        _TAG,
        "List the versions of a network policy",
        item=shapes.NetworkVersionSerializer,
        scope=actions.READ,
    )
    def get(self, request: Request, policy_id: str) -> Response:
        """List what a policy was, newest first."""
        rows = selectors.versions_of(selectors.policy_for(self.actor, policy_id))
        return self.page(rows, NEWEST_VERSION, shapes.NetworkVersionSerializer)


class Bundles(ApiView):
    """`/network-bundles`."""

    @documented_list(
        "list_network_bundles", _TAG, "List bundles", item=shapes.NetworkBundleSerializer, scope=actions.READ
    )
    def get(self, request: Request) -> Response:
        """List all bundles by name with the hosts they stand for."""
        return self.page(selectors.bundles_for(self.actor), BY_BUNDLE, shapes.NetworkBundleSerializer)


class Bundle(ApiView):
    """`/network-bundles/{bundle}`: for operators."""

    @documented(
        "set_network_bundle",
        _TAG,
        "Set a bundle",
        scope=actions.OPERATE,
        body=shapes.BundleBody,
        answer=shapes.NetworkBundleSerializer,
    )
    def put(self, request: Request, bundle_name: str) -> Response:
        """Say what a bundle stands for, for running sandboxes too."""
        bundle = actions.set_bundle(actor=self.actor, name=bundle_name, **self.body(shapes.BundleBody))
        return Response(shapes.NetworkBundleSerializer(bundle).data)


class DenyList(ApiView):
    """`/network-deny-list`: for operators."""

    @documented(
        "get_network_deny_list",
        _TAG,
        "Show what no sandbox may reach",
        scope=actions.OPERATE,
        answer=shapes.NetworkDenyListSerializer,
    )
    def get(self, request: Request) -> Response:
        """Return the platform's deny list."""
        return Response(shapes.NetworkDenyListSerializer(selectors.denied_for(self.actor)).data)

    @documented(
        "set_network_deny_list",
        _TAG,
        "Set what no sandbox may reach",
        scope=actions.OPERATE,
        body=shapes.DenyListBody,
        answer=shapes.NetworkDenyListSerializer,
    )
    def put(self, request: Request) -> Response:
        """Replace the platform's deny list, for running sandboxes too."""
        row = actions.set_platform_deny(actor=self.actor, entries=self.body(shapes.DenyListBody)["deny"])
        return Response(shapes.NetworkDenyListSerializer(row).data)


class TenantNetwork(OfTenant):
    """`/tenants/{tenant}/network`."""

    @documented(
        "get_tenant_network",
        _TAG,
        "Show a tenant's default and ceiling",
        scope=actions.READ,
        answer=shapes.TenantNetworkSerializer,
    )
    def get(self, request: Request, tenant_id: str) -> Response:
        """Return the policy of sandboxes that name none, and what none can go beyond."""
        tenant = tenant_selectors.tenant_for(self.actor, tenant_id, actions.READ)
        return Response(shapes.TenantNetworkSerializer(network_of(tenant)).data)

    @documented(
        "set_tenant_network",
        _TAG,
        "Change a tenant's default and ceiling",
        scope=actions.WRITE,
        body=shapes.TenantNetworkBody,
        answer=shapes.TenantNetworkSerializer,
    )
    def patch(self, request: Request, tenant_id: str) -> Response:
        """Change the tenant's default; all other fields are for operators."""
        tenant = tenant_selectors.tenant_for(self.actor, tenant_id, actions.WRITE)
        actions.set_network(actor=self.actor, tenant=tenant, wanted=self.body(shapes.TenantNetworkBody))
        return Response(shapes.TenantNetworkSerializer(network_of(tenant)).data)
