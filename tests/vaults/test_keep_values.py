"""The embedded vault: what it keeps it gives back, to the right one only, and the database holds nothing readable."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from corekit import ids
from corekit.needles import Needles
from tenants.secretmodels import SealedValue, TenantKey
from tenants.vaults import choosing
from tenants.vaults.contract import (
    Ref,
    SecretDisabled,
    SecretMissing,
    SecretUnreadable,
    VaultMisconfigured,
)
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from tenants.models import Tenant
    from tenants.vaults.embedded import EmbeddedVault

pytestmark = pytest.mark.django_db

ONE, TWO = SecretValue(b"sk-first-0123456789"), SecretValue("sk-zweite-äöü".encode())


@pytest.fixture
def vault() -> EmbeddedVault:
    """Return the embedded vault of this installation."""
    return choosing.embedded()


@pytest.fixture
def key(acme: Tenant) -> Ref:
    """Return a reference to a secret of Acme."""
    return ref(acme)


def ref(tenant: Tenant, name: str = "openai-key") -> Ref:
    """Return a reference to a new secret."""
    return Ref(tenant.pk.hex, name, ids.new_event_id())


def test_each_version_is_given_back_and_the_newest_without_asking_for_one(vault: EmbeddedVault, key: Ref) -> None:
    first, second = vault.put(key, ONE), vault.put(key, TWO)

    assert vault.get(key) == TWO
    assert vault.get(key, second.version) == TWO
    assert vault.get(key, first.version) == ONE


def test_the_list_tells_of_secrets_without_their_values(vault: EmbeddedVault, acme: Tenant, evil_corp: Tenant) -> None:
    key, other = ref(acme), ref(acme, "github")
    vault.put(key, ONE)
    newest = vault.put(key, TWO)
    vault.put(other, ONE)
    vault.delete(other)
    vault.put(ref(evil_corp), ONE)

    told = {meta.secret_id: meta for meta in vault.list(acme.pk.hex)}

    assert set(told) == {key.secret_id, other.secret_id}
    assert (told[key.secret_id].name, told[key.secret_id].version) == ("openai-key", newest.version)
    assert (told[key.secret_id].enabled, told[key.secret_id].deleted) == (True, False)
    assert told[other.secret_id].deleted


def test_the_same_value_never_looks_the_same(vault: EmbeddedVault, acme: Tenant) -> None:
    for _ in range(3):
        vault.put(ref(acme), ONE)
    rows = SealedValue.everywhere().filter(tenant=acme)
    assert len({bytes(row.sealed) for row in rows}) == 3
    assert len({bytes(row.data_key) for row in rows}) == 3
    assert TenantKey.everywhere().filter(tenant=acme).count() == 1


def test_no_table_holds_a_value_in_any_encoding(vault: EmbeddedVault, key: Ref) -> None:
    vault.put(key, ONE)
    needles = Needles([ONE.reveal()])
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            for row in cursor.fetchall():
                for cell in row:
                    data = bytes(cell) if isinstance(cell, bytes | memoryview) else str(cell).encode()
                    assert not needles.found_in(data), table


def test_a_disabled_version_is_given_to_nobody_until_it_is_enabled(vault: EmbeddedVault, key: Ref) -> None:
    first, second = vault.put(key, ONE), vault.put(key, TWO)
    vault.disable(key, first.version)
    with pytest.raises(SecretDisabled):
        vault.get(key, first.version)
    assert vault.get(key, second.version) == TWO

    vault.disable(key)
    with pytest.raises(SecretDisabled):
        vault.get(key)

    vault.enable(key)
    assert vault.get(key, first.version) == ONE


def test_a_deleted_secret_can_be_recovered_and_a_purged_one_can_not(vault: EmbeddedVault, key: Ref) -> None:
    vault.put(key, ONE)
    vault.delete(key)
    with pytest.raises(SecretMissing):
        vault.get(key)

    vault.recover(key)
    assert vault.get(key) == ONE

    vault.delete(key)
    vault.delete(key)
    vault.purge(key)
    vault.purge(key)
    with pytest.raises(SecretMissing):
        vault.recover(key)
    assert not SealedValue.everywhere().exists()


def test_what_is_not_deleted_is_not_purged(vault: EmbeddedVault, key: Ref) -> None:
    vault.put(key, ONE)
    vault.purge(key)
    assert vault.get(key) == ONE


def test_a_secret_of_the_same_name_is_another_one(vault: EmbeddedVault, acme: Tenant) -> None:
    old, new = ref(acme), ref(acme)
    vault.put(old, ONE)
    vault.delete(old)
    vault.put(new, TWO)
    vault.purge(old)
    assert vault.get(new) == TWO


@pytest.mark.parametrize("act", ["disable", "enable", "recover"])
def test_there_is_nothing_to_do_with_what_was_never_there(vault: EmbeddedVault, key: Ref, act: str) -> None:
    with pytest.raises(SecretMissing):
        getattr(vault, act)(key)
    with pytest.raises(SecretMissing):
        vault.get(key)


def test_another_versions_name_opens_nothing(vault: EmbeddedVault, acme: Tenant, key: Ref) -> None:
    other = vault.put(ref(acme), ONE)
    vault.put(key, TWO)
    with pytest.raises(SecretMissing):
        vault.get(key, other.version)


def test_an_entry_that_somebody_else_made_is_not_for_this_vault(vault: EmbeddedVault, key: Ref) -> None:
    with pytest.raises(VaultMisconfigured):
        vault.put(dataclasses.replace(key, entry="x"), ONE)
    with pytest.raises(VaultMisconfigured):
        vault.get(dataclasses.replace(key, entry="x"))


# Who can write to the database still reads nothing of another tenant, and can't exchange one secret for another.


def moved(row: SealedValue, **changes: Any) -> None:
    """Write a copy of a row with some columns changed, as somebody with the database's password could."""
    row.pk = None
    for name, value in changes.items():
        setattr(row, name, value)
    row.save(force_insert=True)


def test_a_row_copied_to_another_tenant_does_not_open(vault: EmbeddedVault, key: Ref, evil_corp: Tenant) -> None:
    vault.put(key, ONE)
    theirs = ref(evil_corp)
    vault.put(theirs, TWO)

    moved(SealedValue.everywhere().get(secret_id=key.secret_id), tenant=evil_corp, secret_id=theirs.secret_id)

    with pytest.raises(SecretUnreadable):
        vault.get(theirs)


def test_a_row_copied_together_with_its_tenants_key_does_not_open(
    vault: EmbeddedVault, acme: Tenant, key: Ref, evil_corp: Tenant
) -> None:
    vault.put(key, ONE)
    theirs = ref(evil_corp)
    copied = TenantKey.everywhere().get(tenant=acme)
    copied.tenant = evil_corp
    copied.save(force_insert=True)
    moved(SealedValue.everywhere().get(secret_id=key.secret_id), tenant=evil_corp, secret_id=theirs.secret_id)

    with pytest.raises(SecretUnreadable):
        vault.get(theirs)


def test_a_row_copied_to_another_secret_of_the_tenant_does_not_open(
    vault: EmbeddedVault, acme: Tenant, key: Ref
) -> None:
    vault.put(key, ONE)
    other = ref(acme, "github")
    vault.put(other, TWO)

    moved(SealedValue.everywhere().get(secret_id=key.secret_id), secret_id=other.secret_id, name="github")

    with pytest.raises(SecretUnreadable):
        vault.get(other)


@pytest.mark.parametrize("column", ["sealed", "data_key"])
def test_a_value_put_in_the_place_of_a_newer_one_does_not_open(vault: EmbeddedVault, key: Ref, column: str) -> None:
    vault.put(key, ONE)
    newest = vault.put(key, TWO)
    old, new = SealedValue.everywhere().order_by("pk")
    setattr(new, column, getattr(old, column))
    new.save(update_fields=(column,))

    with pytest.raises(SecretUnreadable):
        vault.get(key, newest.version)


@pytest.mark.parametrize("column", ["sealed", "data_key"])
def test_a_changed_byte_does_not_open(vault: EmbeddedVault, key: Ref, column: str) -> None:
    vault.put(key, ONE)
    row = SealedValue.everywhere().get()
    for at in (0, 12, len(bytes(getattr(row, column))) - 1):
        before = bytes(getattr(row, column))
        after = bytearray(before)
        after[at] ^= 1
        SealedValue.everywhere().update(**{column: bytes(after)})
        with pytest.raises(SecretUnreadable):
            vault.get(key)
        SealedValue.everywhere().update(**{column: before})
    assert vault.get(key) == ONE


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(12), bytes(28)])
def test_what_is_no_envelope_does_not_open(vault: EmbeddedVault, key: Ref, sealed: bytes) -> None:
    vault.put(key, ONE)
    SealedValue.everywhere().update(sealed=sealed)
    with pytest.raises(SecretUnreadable):
        vault.get(key)


def test_without_the_tenants_key_all_of_its_values_are_gone(
    vault: EmbeddedVault, acme: Tenant, key: Ref, evil_corp: Tenant
) -> None:
    theirs = ref(evil_corp)
    vault.put(key, ONE)
    vault.put(theirs, TWO)

    TenantKey.everywhere().filter(tenant=acme).delete()

    with pytest.raises(SecretMissing, match="erased"):
        vault.get(key)
    assert vault.get(theirs) == TWO
