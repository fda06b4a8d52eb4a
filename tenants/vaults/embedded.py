"""The embedded vault: values sealed in our own database, under keys that end in one outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.db import DatabaseError

from corekit import clock, ids
from corekit.errors import GatehouseError
from tenants.secretmodels import SealedValue
from tenants.vaults import envelope, tenantkeys
from tenants.vaults.contract import (
    Health,
    Meta,
    Ref,
    SecretDisabled,
    SecretMissing,
    SecretUnreadable,
    Stored,
    VaultMisconfigured,
)
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import QuerySet

    from tenants.vaults.masterkeys import MasterKeys

NAME = "embedded"


class EmbeddedVault:
    """A vault in the tables `SealedValue` and `TenantKey`."""

    name = NAME

    def __init__(self, masters: MasterKeys) -> None:
        self.masters = masters

    def put(self, ref: Ref, value: SecretValue) -> Stored:
        """Keep a value as the newest version."""
        _require_own(ref)
        tenant_key = tenantkeys.make_key_of(self.masters, ref.tenant_id)
        version, created_at, data_key = ids.new_event_id(), clock.now(), envelope.new_key()
        SealedValue(
            tenant_id=UUID(ref.tenant_id),
            secret_id=ref.secret_id,
            name=ref.name,
            version=version,
            created_at=created_at,
            data_key=envelope.seal(tenant_key, data_key, envelope.place_of_data_key(ref, version)),
            sealed=envelope.seal(data_key, value.reveal(), envelope.place_of_value(ref, version, created_at)),
        ).save(force_insert=True)
        return Stored(version)

    def get(self, ref: Ref, version: str | None = None) -> SecretValue:
        """Return a value. Raises SecretUnreadable for one that was not sealed for exactly this place."""
        _require_own(ref)
        rows = self._kept(ref).order_by("-pk")
        row = (rows if version is None else rows.filter(version=version)).first()
        if row is None:
            raise SecretMissing
        if not row.enabled:
            raise SecretDisabled
        tenant_key = tenantkeys.key_of(self.masters, ref.tenant_id)
        if tenant_key is None:
            raise SecretMissing("The tenant's key is erased, and with it all of its secrets.")
        try:
            data_key = envelope.unseal(tenant_key, row.data_key, envelope.place_of_data_key(ref, row.version))
            place = envelope.place_of_value(ref, row.version, row.created_at)
            return SecretValue(envelope.unseal(data_key, row.sealed, place))
        except envelope.BrokenEnvelopeError as error:
            raise SecretUnreadable from error

    def list(self, tenant_id: str) -> Iterator[Meta]:
        """Return the newest version of each secret of a tenant."""
        rows = SealedValue.everywhere().filter(tenant_id=UUID(tenant_id)).order_by("secret_id", "-pk")
        seen = ""
        for row in rows.defer("sealed", "data_key"):
            if row.secret_id != seen:
                seen = row.secret_id
                deleted = row.deleted_at is not None
                yield Meta(
                    tenant_id, row.name, row.secret_id, row.version, row.created_at, row.enabled, deleted=deleted
                )

    def disable(self, ref: Ref, version: str | None = None) -> None:
        """Give out a version, or all, no more."""
        self._enable(ref, version, enabled=False)

    def enable(self, ref: Ref, version: str | None = None) -> None:
        """Give out what was disabled again."""
        self._enable(ref, version, enabled=True)

    def delete(self, ref: Ref) -> None:
        """Give out no version any more."""
        self._kept(ref).update(deleted_at=clock.now())

    def recover(self, ref: Ref) -> None:
        """Undo a deletion."""
        if not self._all(ref).exclude(deleted_at=None).update(deleted_at=None):
            raise SecretMissing

    def purge(self, ref: Ref) -> None:
        """Erase what is deleted, for good."""
        self._all(ref).exclude(deleted_at=None).delete()

    def health(self) -> Health:
        """Try whether the master keys open what they sealed."""
        try:
            return self._health()
        except GatehouseError as error:
            problem, _, fix = error.message.partition(": ")
            return Health(ok=False, message=f"{problem.rstrip('.')}.", fix=fix)
        except DatabaseError:
            return Health(
                ok=False,
                message="The database does not answer, or lacks the vault's tables.",
                fix="run `manage.py bootstrap`",
            )

    def _health(self) -> Health:
        masters = self.masters.all()
        if not all(tenantkeys.note_sentinel(master) for master in masters):
            return Health(
                ok=False,
                message="A master key does not open the text that it sealed: the database was changed.",
                fix="bring back the table of master keys from a backup",
            )
        known = {master.id for master in masters}
        counts = tenantkeys.count_by_master()
        if lost := {master_id: count for master_id, count in counts.items() if master_id not in known}:
            master_id, count = next(iter(lost.items()))
            return Health(
                ok=False,
                message=f"The keys of {count} tenants are under the master key {master_id}, which is not there.",
                fix="put it back beside the newest one",
            )
        tenants = sum(counts.values())
        return Health(ok=True, message=f"The newest master key is {masters[0].id}; tenants with a key: {tenants}.")

    def _enable(self, ref: Ref, version: str | None, *, enabled: bool) -> None:
        rows = self._kept(ref)
        if not (rows if version is None else rows.filter(version=version)).update(enabled=enabled):
            raise SecretMissing

    def _all(self, ref: Ref) -> QuerySet[SealedValue]:
        return SealedValue.everywhere().filter(tenant_id=UUID(ref.tenant_id), secret_id=ref.secret_id)

    def _kept(self, ref: Ref) -> QuerySet[SealedValue]:
        return self._all(ref).filter(deleted_at=None)


def _require_own(ref: Ref) -> None:
    if ref.entry:
        raise VaultMisconfigured("The embedded vault has no entries that somebody else made.")
