"""Reads of network policies and what belongs to them, for who may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corekit import ids
from corekit.errors import InvalidInput, NotFound
from tenants import policy
from tenants.models import Bundle, NetworkPolicy, NetworkPolicyVersion, PlatformNetwork, Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import QuerySet

    from corekit.actor import Actor

READ = "networks:read"


def policies_for(actor: Actor) -> QuerySet[NetworkPolicy]:
    """Return the platform's policies and the tenant's own; for operators those of all tenants."""
    policy.require(actor, READ)
    return NetworkPolicy.visible_to(actor)


def policy_for(actor: Actor, name: str, scope: str = READ) -> NetworkPolicy:
    """Return a policy by its name, the tenant's own before the platform's, or by its id. Raises NotFound first."""
    rows = NetworkPolicy.visible_to(actor).select_related("tenant")
    if ids.is_event_id(name):
        found = rows.filter(pk=name).first()
    else:
        named = rows.filter(name=name[:64])
        own = named.filter(tenant__isnull=False).first() if actor.tenant_id is not None else None
        found = own or named.filter(tenant=None).first()
    if found is None:
        raise NotFound("There is no such network policy.")
    policy.require(actor, scope)
    return found


def body_of(chosen: NetworkPolicy, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy as a body that would make it. Raises InvalidInput when there is another body beside it."""
    for name in body:
        raise InvalidInput(f"{name}: Give the policy's name or its fields, not both.", field=name)
    return {name: value for name, value in chosen.spec.items() if name != "written"} | {
        "egress": chosen.spec["written"]
    }


def tenant_to_check(actor: Actor) -> Tenant | None:
    """Return the tenant under whose ceiling an actor tries policies; None for operators."""
    policy.require(actor, READ)
    return tenant_of(actor)


def versions_of(chosen: NetworkPolicy) -> QuerySet[NetworkPolicyVersion]:
    """Return all versions of a policy that the caller was shown."""
    return chosen.versions.all()


def bundles_for(actor: Actor) -> QuerySet[Bundle]:
    """Return all bundles, also those that stand for nothing yet: they are the platform's, and everybody's to name."""
    policy.require(actor, READ)
    return Bundle.objects.all()


def denied_for(actor: Actor) -> PlatformNetwork:
    """Return what no sandbox may reach. Raises Forbidden for everybody but operators."""
    policy.require(actor, "platform:write")
    return PlatformNetwork.objects.first() or PlatformNetwork()


def tenant_of(actor: Actor) -> Tenant | None:
    """Return the tenant that an actor acts for; None for operators, who act for the platform."""
    return None if actor.tenant_id is None else Tenant.objects.get(pk=actor.tenant_id)
