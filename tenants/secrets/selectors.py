"""Reads of secrets. Whatever a caller may not see is as absent as what never was; a value is seen by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Q

from corekit.errors import Forbidden, NotFound
from tenants import policy
from tenants.models import Tenant
from tenants.secretmodels import NAME, Secret, SecretVersion, normal_name
from tenants.secrets.names import ID_PREFIX
from tenants.states import TenantState
from tenants.vaults import choosing

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from corekit.actor import Actor

READ, WRITE = "secrets:read", "secrets:write"


def secrets_for(actor: Actor) -> QuerySet[Secret]:
    """Return the tenant's secrets, for operators those of all tenants; never a deleted one."""
    policy.require(actor, READ)
    return Secret.visible_to(actor).filter(deleted_at=None)


def secret_for(actor: Actor, id_or_name: str, scope: str = READ) -> Secret:
    """Return one secret by its id, or within a tenant by its name. Raises NotFound before Forbidden."""
    rows = Secret.visible_to(actor).filter(deleted_at=None).select_related("tenant")
    wanted = normal_name(id_or_name)
    found = None
    # An id has the form of a name too.
    if NAME.fullmatch(wanted) and wanted.startswith(ID_PREFIX):
        found = rows.filter(pk=wanted).first()
    elif NAME.fullmatch(wanted) and actor.tenant_id is not None:
        found = rows.filter(name=wanted).first()
    if found is None:
        raise NotFound("There is no such secret.")
    policy.require(actor, scope)
    return found


def versions_of(secret: Secret) -> QuerySet[SecretVersion]:
    """Return all versions of a secret that the caller was shown."""
    return secret.versions.all()


def tenant_of(actor: Actor) -> Tenant:
    """Return the tenant that gets a new secret. Raises Forbidden for operators, who have none."""
    policy.require(actor, WRITE)
    if actor.tenant_id is None:
        raise Forbidden("Secrets belong to tenants: use a tenant's key, or `manage.py secrets` on the server.")
    return Tenant.objects.get(pk=actor.tenant_id)


def vaults_for(actor: Actor) -> dict[str, object]:
    """Return the names of the vaults in which the tenant's secrets may lie, for operators of all, and the default."""
    policy.require(actor, READ)
    names = sorted(choosing.configured())
    if actor.tenant_id is not None:
        slug = Tenant.objects.values_list("slug", flat=True).get(pk=actor.tenant_id)
        names = [name for name in names if choosing.configured()[name].serves(slug)]
    return {"default": settings.GATEHOUSE.default_vault, "vaults": names}


def deleted_and_kept() -> QuerySet[Secret]:
    """Return the secrets of all tenants that are deleted, or whose tenant is, and that are still in their vaults."""
    gone = Q(deleted_at__isnull=False) | Q(tenant__state=TenantState.OFFBOARDING)
    return Secret.everywhere().filter(gone, purged_at=None).order_by("pk")
