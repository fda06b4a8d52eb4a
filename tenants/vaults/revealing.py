"""The one door to a secret's value. No view answers with what comes out of it.

Who calls sends the value to where it belongs: the broker upstream, the route for credentials to the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from django.db import connection, transaction

from audit.models import Outcome
from audit.recording import record
from corekit.actor import SYSTEM
from tenants.models import Tenant
from tenants.secretmodels import NAME, Secret, SecretState, SecretVersion, normal_name
from tenants.states import TenantState
from tenants.vaults import choosing
from tenants.vaults.cache import ValueCache
from tenants.vaults.contract import Ref, SecretDisabled, SecretMissing, SecretUnreadable

if TYPE_CHECKING:
    from tenants.vaults.secretvalue import SecretValue

_values = ValueCache()
_SECRET, _TENANT = Secret._meta.db_table, Tenant._meta.db_table
# As SQL: each request that a sandbox sends with a secret asks this, and the ORM alone would take thirty times as long.
_CURRENT = (
    "SELECT s.id, s.name, s.vault, s.entry, s.state, s.current_version, s.revision, t.state "  # noqa: S608
    f"FROM {_SECRET} s JOIN {_TENANT} t ON t.id = s.tenant_id "
    "WHERE s.tenant_id = %s AND s.name = %s AND s.deleted_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Revealed:
    """A value, and which one it is."""

    value: SecretValue
    secret_id: str
    name: str
    version: int


class _Current(NamedTuple):
    """What a secret is at this moment."""

    id: str
    name: str
    vault: str
    entry: str
    state: str
    version: int
    revision: int
    tenant_state: str


def reveal(tenant_id: str, name: str, *, version: int | None = None) -> Revealed:
    """Return the value that a tenant's secret has now, or had in a version.

    Its row is read each time, so that a new version, a disabled and a deleted secret count at once; the value itself
    may come from the memory of this process. Raises SecretMissing, SecretDisabled, VaultUnavailable, VaultDenied,
    VaultMisconfigured, SecretUnreadable.
    """
    wanted = normal_name(name)
    found = _current(UUID(tenant_id), wanted) if NAME.fullmatch(wanted) else None
    if found is None:
        raise SecretMissing(f"There is no secret {wanted[:128]!r}.")
    if found.state != SecretState.ACTIVE or found.tenant_state != TenantState.ACTIVE:
        raise SecretDisabled(f"The secret {found.name} is disabled.")
    number = found.version if version is None else version
    value = _values.get((found.id, number), found.revision, lambda: _read(tenant_id, found, number))
    return Revealed(value, found.id, found.name, number)


def _current(tenant_id: UUID, name: str) -> _Current | None:
    with connection.cursor() as cursor:
        cursor.execute(_CURRENT, [Tenant._meta.pk.get_db_prep_value(tenant_id, connection), name])
        row = cursor.fetchone()
    return None if row is None else _Current(*row)


def forget_values(secret_id: str | None = None) -> None:
    """Forget the values of a secret, or of all, in the memory of this process."""
    _values.forget(lambda key: secret_id is None or (isinstance(key, tuple) and key[0] == secret_id))


def ref_of(secret: Secret) -> Ref:
    """Return how its vault knows a secret."""
    return _ref(secret.tenant_id.hex, secret.name, secret.pk, secret.entry)


def _ref(tenant_id: str, name: str, secret_id: str, entry: str) -> Ref:
    return Ref(tenant_id, name, secret_id.removeprefix("sec_"), entry)


def _read(tenant_id: str, found: _Current, number: int) -> SecretValue:
    kept = SecretVersion.objects.filter(secret=found.id, number=number).first()
    if kept is None:
        raise SecretMissing(f"The secret {found.name} has no version {number}.")
    try:
        ref = _ref(UUID(tenant_id).hex, found.name, found.id, found.entry)
        return choosing.vault_named(found.vault).get(ref, kept.vault_version or None)
    except SecretUnreadable:
        _note_unreadable(tenant_id, found, number)
        raise


def _note_unreadable(tenant_id: str, found: _Current, number: int) -> None:
    # In a transaction of its own: the caller's is about to fail.
    with transaction.atomic():
        record(
            "secret.unreadable",
            actor=SYSTEM,
            object_type="secret",
            object_id=found.id,
            object_name=found.name,
            tenant_id=tenant_id,
            outcome=Outcome.ERROR,
            details={"name": found.name, "vault": found.vault, "version": number},
        )
