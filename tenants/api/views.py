"""The REST API of tenants, their members, API keys and quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.response import Response

from corekit.errors import NotFound
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView
from tenants import actions, quota, selectors
from tenants.api import serializers as shapes
from tenants.states import TenantState

if TYPE_CHECKING:
    from rest_framework.request import Request

BY_SLUG = Order(("slug",))
BY_USER = Order(("user_id",))
NEWEST_KEY = Order(("-created_at", "id"))


class Tenants(ApiView):
    """`/tenants`."""

    @documented_list("list_tenants", "Tenants", "List tenants", item=shapes.TenantSerializer, scope="tenant:read")
    def get(self, request: Request) -> Response:
        """List all tenants for operators; everybody else sees their own."""
        return self.page(selectors.tenants_for(self.actor), BY_SLUG, shapes.TenantSerializer)

    @documented(
        "create_tenant",
        "Tenants",
        "Create a tenant",
        scope="platform:write",
        body=shapes.NewTenantBody,
        answer=shapes.TenantSerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Create a tenant with the default quota and limit range."""
        wanted = self.body(shapes.NewTenantBody)
        tenant = actions.create_tenant(actor=self.actor, slug=wanted["slug"], name=wanted.get("name") or wanted["slug"])
        return Response(shapes.TenantSerializer(tenant).data, status=201)


class OfTenant(ApiView):
    """Base of all views below one tenant: who asks for a tenant that is not theirs is recorded."""

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error."""
        wanted = selectors.as_uuid(self.kwargs["tenant_id"])
        if isinstance(exc, NotFound) and wanted is not None:
            actions.note_denied(actor=self.actor, tenant_id=wanted)
        return super().handle_exception(exc)


class Tenant(OfTenant):
    """`/tenants/{tenant}`."""

    @documented("get_tenant", "Tenants", "Show a tenant", scope="tenant:read", answer=shapes.TenantSerializer)
    def get(self, request: Request, tenant_id: str) -> Response:
        """Return one tenant."""
        return Response(shapes.TenantSerializer(selectors.tenant_for(self.actor, tenant_id, "tenant:read")).data)


class TenantStateView(OfTenant):
    """Base of the calls that move a tenant to another state."""

    state = TenantState.ACTIVE

    def move(self, tenant_id: str) -> Response:
        """Move it."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "platform:write")
        moved = actions.set_tenant_state(actor=self.actor, tenant=tenant, state=self.state)
        return Response(shapes.TenantSerializer(moved).data)


class Suspend(TenantStateView):
    """`/tenants/{tenant}/suspend`."""

    state = TenantState.SUSPENDED

    @documented("suspend_tenant", "Tenants", "Suspend a tenant", scope="platform:write", answer=shapes.TenantSerializer)
    def post(self, request: Request, tenant_id: str) -> Response:
        """Let a tenant's keys open nothing."""
        return self.move(tenant_id)


class Activate(TenantStateView):
    """`/tenants/{tenant}/activate`."""

    @documented(
        "activate_tenant", "Tenants", "Activate a tenant", scope="platform:write", answer=shapes.TenantSerializer
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Undo a suspension."""
        return self.move(tenant_id)


class Members(OfTenant):
    """`/tenants/{tenant}/members`."""

    @documented_list("list_members", "Members", "List members", item=shapes.MemberSerializer, scope="members:read")
    def get(self, request: Request, tenant_id: str) -> Response:
        """List a tenant's members."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "members:read")
        return self.page(selectors.members_of(self.actor, tenant), BY_USER, shapes.MemberSerializer)

    @documented(
        "add_member",
        "Members",
        "Add a member",
        scope="members:write",
        body=shapes.NewMemberBody,
        answer=shapes.MemberSerializer,
        status=201,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Make an account a member."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "members:write")
        wanted = self.body(shapes.NewMemberBody)
        account = selectors.account_named(wanted["username"])
        member = actions.add_member(actor=self.actor, tenant=tenant, user=account, role=wanted["role"])
        return Response(shapes.MemberSerializer(member).data, status=201)


class Member(OfTenant):
    """`/tenants/{tenant}/members/{user}`."""

    @documented("get_member", "Members", "Show a member", scope="members:read", answer=shapes.MemberSerializer)
    def get(self, request: Request, tenant_id: str, user_id: int) -> Response:
        """Return one member."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "members:read")
        return Response(shapes.MemberSerializer(selectors.member_for(self.actor, tenant, user_id)).data)

    @documented(
        "change_role",
        "Members",
        "Change a member's role",
        scope="members:write",
        body=shapes.RoleBody,
        answer=shapes.MemberSerializer,
    )
    def patch(self, request: Request, tenant_id: str, user_id: int) -> Response:
        """Give a member another role."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "members:write")
        member = selectors.member_for(self.actor, tenant, user_id)
        role = self.body(shapes.RoleBody)["role"]
        changed = actions.change_role(actor=self.actor, membership=member, role=role)
        return Response(shapes.MemberSerializer(changed).data)

    @documented("remove_member", "Members", "Remove a member", scope="members:write")
    def delete(self, request: Request, tenant_id: str, user_id: int) -> Response:
        """End a membership; the account stays."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "members:write")
        actions.remove_member(actor=self.actor, membership=selectors.member_for(self.actor, tenant, user_id))
        return Response(status=204)


class Keys(OfTenant):
    """`/tenants/{tenant}/keys`."""

    @documented_list("list_keys", "API keys", "List API keys", item=shapes.KeySerializer, scope="keys:read")
    def get(self, request: Request, tenant_id: str) -> Response:
        """List a tenant's API keys, newest first, never their text."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "keys:read")
        return self.page(selectors.keys_of(self.actor, tenant), NEWEST_KEY, shapes.KeySerializer)

    @documented(
        "create_key",
        "API keys",
        "Create an API key",
        scope="keys:write",
        body=shapes.NewKeyBody,
        answer=shapes.NewKeySerializer,
        status=201,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """Create an API key; this answer is the only one with its text."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "keys:write")
        key, plaintext = actions.create_api_key(actor=self.actor, tenant=tenant, **self.body(shapes.NewKeyBody))
        return Response({**shapes.KeySerializer(key).data, "key": plaintext}, status=201)


class Key(OfTenant):
    """`/tenants/{tenant}/keys/{key}`."""

    @documented("get_key", "API keys", "Show an API key", scope="keys:read", answer=shapes.KeySerializer)
    def get(self, request: Request, tenant_id: str, key_id: str) -> Response:
        """Return one API key, never its text."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "keys:read")
        return Response(shapes.KeySerializer(selectors.key_for(self.actor, tenant, key_id)).data)

    @documented("revoke_key", "API keys", "Revoke an API key", scope="keys:write")
    def delete(self, request: Request, tenant_id: str, key_id: str) -> Response:
        """Revoke a key for good, also for what it has open. Again is harmless."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "keys:write")
        actions.revoke_api_key(actor=self.actor, key=selectors.key_for(self.actor, tenant, key_id))
        return Response(status=204)


class Quota(OfTenant):
    """`/tenants/{tenant}/quota`."""

    @documented("get_quota", "Quotas", "Show quota and usage", scope="quota:read", answer=shapes.QuotaSerializer)
    def get(self, request: Request, tenant_id: str) -> Response:
        """Return a tenant's limits and what is used of them."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "quota:read")
        return Response(shapes.quota_answer(quota.usage(tenant.pk)))

    @documented(
        "set_quota",
        "Quotas",
        "Change a quota",
        scope="platform:write",
        body=shapes.QuotaBody,
        answer=shapes.QuotaSerializer,
    )
    def patch(self, request: Request, tenant_id: str) -> Response:
        """Change some limits; what runs keeps running."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "platform:write")
        actions.set_quota(actor=self.actor, tenant=tenant, **self.body(shapes.QuotaBody))
        return Response(shapes.quota_answer(quota.usage(tenant.pk)))


class LimitRange(OfTenant):
    """`/tenants/{tenant}/limit-range`."""

    @documented(
        "get_limit_range",
        "Quotas",
        "Show the bounds of one sandbox",
        scope="quota:read",
        answer=shapes.LimitRangeSerializer,
    )
    def get(self, request: Request, tenant_id: str) -> Response:
        """Return the bounds and defaults of one sandbox."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "quota:read")
        return Response(shapes.limit_range_answer(selectors.limit_range_of(self.actor, tenant)))

    @documented(
        "set_limit_range",
        "Quotas",
        "Change the bounds of one sandbox",
        scope="platform:write",
        body=shapes.LimitRangeBody,
        answer=shapes.LimitRangeSerializer,
    )
    def patch(self, request: Request, tenant_id: str) -> Response:
        """Change some bounds; running sandboxes are not touched."""
        tenant = selectors.tenant_for(self.actor, tenant_id, "platform:write")
        row = actions.set_limit_range(actor=self.actor, tenant=tenant, **self.body(shapes.LimitRangeBody))
        return Response(shapes.limit_range_answer(row))
