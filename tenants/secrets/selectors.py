"""Reads of secrets. Whatever a caller may not see is as absent as what never was; a value is seen by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekit.errors import Forbidden
from tenants import policy
from tenants.models import Tenant
from tenants.secretmodels import NAME, Secret, SecretVersion, normal_name
from tenants.secrets.names import ID_PREFIX
from tenants.vaults import choosing
from tenants.vaults.contract import SecretMissing

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from corekit.actor import Actor

READ, WRITE = "secrets:read", "secrets:write"


def secrets_for(actor: Actor) -> QuerySet[Secret]:
    """Return the tenant's secrets, for operators those of all tenants; never a deleted one."""
    policy.require(actor, READ)
    return Secret.visible_to(actor).filter(deleted_at=None)


def secret_for(actor: Actor, id_or_name: str, scope: str = READ) -> Secret:
    """Return one secret by its id, or within a tenant by its name. Raises SecretMissing before Forbidden."""
    rows = Secret.visible_to(actor).filter(deleted_at=None).select_related("tenant")
    wanted = normal_name(id_or_name)
    found = None
    # An id has the form of a name too.
    if NAME.fullmatch(wanted) and wanted.startswith(ID_PREFIX):
        found = rows.filter(pk=wanted).first()
    elif NAME.fullmatch(wanted) and actor.tenant_id is not None:
        found = rows.filter(name=wanted).first()
    if found is None:
        raise SecretMissing
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


def vaults_for(actor: Actor) -> list[str]:
    """Return the names of the vaults in which the tenant's secrets may lie, the default one first."""
    slug = tenant_of(actor).slug
    default = choosing.vault_for(slug, None).name
    return [
        default,
        *sorted(name for name, one in choosing.configured().items() if one.serves(slug) and name != default),
    ]
