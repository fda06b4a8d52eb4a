"""The one door to a secret's value. No view answers with what comes out of it.

Who calls sends the value to where it belongs: the broker upstream, the route for credentials to the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from audit.models import Outcome
from audit.recording import record
from corekit.actor import SYSTEM
from tenants.secretmodels import NAME, Secret, SecretState, SecretVersion, normal_name
from tenants.states import TenantState
from tenants.vaults import choosing
from tenants.vaults.cache import ValueCache
from tenants.vaults.contract import Ref, SecretDisabled, SecretMissing, SecretUnreadable

if TYPE_CHECKING:
    from tenants.vaults.secretvalue import SecretValue

_values = ValueCache()


@dataclass(frozen=True, slots=True)
class Revealed:
    """A value, and which one it is."""

    value: SecretValue
    secret_id: str
    name: str
    version: int


def reveal(tenant_id: str, name: str, *, version: int | None = None) -> Revealed:
    """Return the value that a tenant's secret has now, or had in a version.

    Its row is read each time, so that a new version, a disabled and a deleted secret count at once; the value itself
    may come from the memory of this process. Raises SecretMissing, SecretDisabled, VaultUnavailable, VaultDenied,
    VaultMisconfigured, SecretUnreadable.
    """
    wanted = normal_name(name)
    secret = None
    if NAME.fullmatch(wanted):
        rows = Secret.everywhere().filter(tenant_id=UUID(tenant_id), name=wanted, deleted_at=None)
        secret = rows.select_related("tenant").first()
    if secret is None:
        raise SecretMissing
    if secret.state != SecretState.ACTIVE or secret.tenant.state != TenantState.ACTIVE:
        raise SecretDisabled(f"The secret {secret.name} is disabled.")
    number = secret.current_version if version is None else version
    value = _values.get((secret.pk, number), secret.revision, lambda: _read(secret, number))
    return Revealed(value, secret.pk, secret.name, number)


def forget_values() -> None:
    """Forget the values in the memory of this process."""
    _values.clear()


def ref_of(secret: Secret) -> Ref:
    """Return how its vault knows a secret."""
    return Ref(secret.tenant_id.hex, secret.name, secret.pk.removeprefix("sec_"), secret.entry)


def _read(secret: Secret, number: int) -> SecretValue:
    kept = SecretVersion.objects.filter(secret=secret, number=number).first()
    if kept is None:
        raise SecretMissing(f"The secret {secret.name} has no version {number}.")
    try:
        return choosing.vault_named(secret.vault).get(ref_of(secret), kept.vault_version or None)
    except SecretUnreadable:
        _note_unreadable(secret, number)
        raise


def _note_unreadable(secret: Secret, number: int) -> None:
    # In a transaction of its own: the caller's is about to fail.
    with transaction.atomic():
        record(
            "secret.unreadable",
            actor=SYSTEM,
            object_type="secret",
            object_id=secret.pk,
            object_name=secret.name,
            tenant_id=secret.tenant_id,
            outcome=Outcome.ERROR,
            details={"name": secret.name, "vault": secret.vault, "version": number},
        )
