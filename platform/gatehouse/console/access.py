"""Who looks at a page: an operator, who sees everything, or a member with the scopes of their role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekit.actor import Actor
from corekit.errors import NotFound
from corekit.web.pages import Viewer
from tenants.models import Membership, Tenant, User
from tenants.policy import EVERYTHING, ROLE_SCOPES
from tenants.states import TenantState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from uuid import UUID

    from django.contrib.auth.models import AnonymousUser

_SHOWN_TENANTS = 200


def is_operator(user: User | AnonymousUser) -> bool:
    """Say whether an account operates the platform. Whoever else signs in has memberships."""
    return bool(user.is_authenticated and user.is_active and user.is_staff)


def operator_actor(user: User, meta: Mapping[str, str]) -> Actor:
    """Return an operator as an actor: all scopes, no tenant."""
    return _actor(user, meta, tenant_id=None, scopes=frozenset({EVERYTHING}))


def viewer_for(user: User, slug: str | None, meta: Mapping[str, str]) -> Viewer:
    """Return who looks at the pages of a tenant, or at the operators' pages without one.

    Raises NotFound for everybody who has no place there: a tenant that exists looks like one that does not.
    """
    if slug is None:
        if not is_operator(user):
            raise NotFound("There is no such page.")
        actor = operator_actor(user, meta)
        return Viewer(actor, None, None, name="Platform", base="/operator/", tenant_names=slugs_of)
    if is_operator(user):
        tenant = Tenant.objects.filter(slug=slug).first()
        actor = operator_actor(user, meta)
    else:
        tenant, actor = _member(user, slug, meta)
    if tenant is None:
        raise NotFound("There is no such tenant, or it is not yours.")
    return Viewer(actor, tenant.pk.hex, tenant.slug, name=tenant.name, base=f"/t/{tenant.slug}/", tenant_names=slugs_of)


def places_of(user: User) -> list[Tenant]:
    """Return the tenants whose pages somebody may open: all to operators, their own to members."""
    tenants = Tenant.objects.order_by("slug")
    if not is_operator(user):
        tenants = tenants.filter(memberships__user=user)
    return list(tenants[:_SHOWN_TENANTS])


def slugs_of(tenants: Collection[UUID]) -> Mapping[UUID, str]:
    """Return the slugs of tenants by their ids; who is erased has none."""
    return dict(Tenant.objects.filter(pk__in=tenants).values_list("pk", "slug")) if tenants else {}


def _member(user: User, slug: str, meta: Mapping[str, str]) -> tuple[Tenant | None, Actor]:
    found = Membership.everywhere().filter(user=user, tenant__slug=slug).select_related("tenant").first()
    if found is None:
        return None, _actor(user, meta, tenant_id=None, scopes=frozenset())
    scopes = ROLE_SCOPES[found.role]
    if found.tenant.state != TenantState.ACTIVE:
        scopes = frozenset(scope for scope in scopes if scope.endswith(":read"))
    return found.tenant, _actor(user, meta, tenant_id=found.tenant.pk.hex, scopes=scopes)


def _actor(user: User, meta: Mapping[str, str], *, tenant_id: str | None, scopes: frozenset[str]) -> Actor:
    return Actor(
        kind="user",
        id=str(user.pk),
        name=user.get_full_name() or user.get_username(),
        tenant_id=tenant_id,
        scopes=scopes,
        origin=meta.get("gatehouse.origin"),
        request_id=meta.get("gatehouse.request_id"),
        auth="session",
    )
