"""The tenants' keys in the database, each sealed under a master key."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.db import IntegrityError, transaction

from corekit import clock
from tenants.secretmodels import MasterKey as MasterKeyRow
from tenants.secretmodels import TenantKey
from tenants.vaults import envelope
from tenants.vaults.contract import SecretUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenants.vaults.masterkeys import MasterKey, MasterKeys

BATCH = 100
_SENTINEL = b"gatehouse vault sentinel v1"


def key_of(masters: MasterKeys, tenant_id: str) -> bytes | None:
    """Return a tenant's key, None when it has none. Raises SecretUnreadable, VaultMisconfigured."""
    row = TenantKey.everywhere().filter(pk=UUID(tenant_id)).first()
    return None if row is None else _opened(masters, row)


def make_key_of(masters: MasterKeys, tenant_id: str) -> bytes:
    """Return a tenant's key, after making one for a tenant that has none."""
    if (found := key_of(masters, tenant_id)) is not None:
        return found
    key, master = envelope.new_key(), masters.newest()
    row = TenantKey(tenant_id=UUID(tenant_id), sealed=_sealed(key, tenant_id, master), master_id=master.id)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        # Somebody else made it at the same moment: everything is sealed under one of the two.
        if (found := key_of(masters, tenant_id)) is None:
            raise
        return found
    return key


def count_by_master() -> dict[str, int]:
    """Return how many tenants' keys are sealed under each master key."""
    counts: dict[str, int] = {}
    for master_id in TenantKey.everywhere().values_list("master_id", flat=True):
        counts[master_id] = counts.get(master_id, 0) + 1
    return counts


def rewrap(masters: MasterKeys) -> Iterator[int]:
    """Seal every tenant's key under the newest master key, a few at a time; yield how many there were each time.

    Values are not touched and stay readable all the while. Stopped anywhere, it goes on where it was.
    """
    newest = masters.newest()
    note_sentinel(newest)
    while rows := list(TenantKey.everywhere().exclude(master_id=newest.id).order_by("pk")[:BATCH]):
        done = 0
        for row in rows:
            tenant_id = row.tenant_id.hex
            sealed = _sealed(_opened(masters, row), tenant_id, newest)
            # Only what is still as we read it: somebody else may be doing the same.
            same = TenantKey.everywhere().filter(pk=row.pk, master_id=row.master_id)
            done += same.update(sealed=sealed, master_id=newest.id, rewrapped_at=clock.now())
        yield done


def note_sentinel(master: MasterKey) -> bool:
    """Keep a text under a master key, unless there is one; say whether the one that is there opens."""
    place = envelope.place_of_sentinel(master.id)
    row, made = MasterKeyRow.objects.get_or_create(
        pk=master.id, defaults={"sentinel": envelope.seal(master.key, _SENTINEL, place)}
    )
    if made:
        return True
    try:
        return envelope.unseal(master.key, row.sentinel, place) == _SENTINEL
    except envelope.BrokenEnvelopeError:
        return False


def _sealed(key: bytes, tenant_id: str, master: MasterKey) -> bytes:
    return envelope.seal(master.key, key, envelope.place_of_tenant_key(tenant_id, master.id))


def _opened(masters: MasterKeys, row: TenantKey) -> bytes:
    master = masters.named(row.master_id)
    try:
        return envelope.unseal(master.key, row.sealed, envelope.place_of_tenant_key(row.tenant_id.hex, row.master_id))
    except envelope.BrokenEnvelopeError as error:
        raise SecretUnreadable("A tenant's key in the database is not the one that was written there.") from error
