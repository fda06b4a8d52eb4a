"""Reads of tenants and what belongs to them. Whatever a caller may not see is as absent as what never was."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from corekit import ids
from corekit.errors import InvalidInput, NotFound
from tenants import policy
from tenants.models import ApiKey, LimitRange, Membership, Tenant, User

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from corekit.actor import Actor


def tenants_for(actor: Actor) -> QuerySet[Tenant]:
    """Return all tenants to operators, to everybody else their own."""
    policy.require(actor, "tenant:read")
    if actor.tenant_id is not None:
        return Tenant.objects.filter(pk=actor.tenant_id)
    return Tenant.objects.all() if actor.has(policy.EVERYTHING) else Tenant.objects.none()


def tenant_for(actor: Actor, tenant_id: str, scope: str) -> Tenant:
    """Return a tenant that the actor may see, to do what the scope says. Raises NotFound before Forbidden."""
    wanted = as_uuid(tenant_id)
    found = None
    if wanted is not None and actor.tenant_id in {None, wanted.hex}:
        found = Tenant.objects.filter(pk=wanted).first()
    if found is None:
        raise NotFound("There is no such tenant.")
    policy.require(actor, scope)
    return found


def as_uuid(text: str) -> UUID | None:
    """Return the id that a text is, or None."""
    try:
        return UUID(text)
    except ValueError:
        return None


def members_of(actor: Actor, tenant: Tenant) -> QuerySet[Membership]:
    """Return a tenant's members with their accounts."""
    return Membership.visible_to(actor).filter(tenant=tenant).select_related("user", "tenant")


def member_for(actor: Actor, tenant: Tenant, user_id: int) -> Membership:
    """Return one member by the account's id. Raises NotFound."""
    found = members_of(actor, tenant).filter(user_id=user_id).first() if user_id < 2**63 else None
    if found is None:
        raise NotFound("There is no such member.")
    return found


def account_named(username: str) -> User:
    """Return the active account of a name. Raises InvalidInput."""
    found = User.objects.filter(username=username, is_active=True).first()
    if found is None:
        raise InvalidInput("There is no account of this name; an operator makes accounts.", field="username")
    return found


def keys_of(actor: Actor, tenant: Tenant) -> QuerySet[ApiKey]:
    """Return a tenant's API keys, revoked ones too."""
    return ApiKey.visible_to(actor).filter(tenant=tenant)


def key_for(actor: Actor, tenant: Tenant, key_id: str) -> ApiKey:
    """Return one API key. Raises NotFound."""
    found = None
    if ids.is_key_id(key_id):
        found = keys_of(actor, tenant).select_related("tenant").filter(pk=key_id).first()
    if found is None:
        raise NotFound("There is no such API key.")
    return found


def limit_range_of(actor: Actor, tenant: Tenant) -> LimitRange:
    """Return the bounds for one sandbox of a tenant."""
    return LimitRange.visible_to(actor).get(pk=tenant.pk)
