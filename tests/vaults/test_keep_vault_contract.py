"""What every vault does, on each that there is: the embedded one, Key Vault's protocol, and an emulator of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from corekit import clock, ids
from tenants.vaults import choosing
from tenants.vaults.contract import Ref, SecretDisabled, SecretMissing
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from tenants.models import Tenant
    from tenants.vaults.contract import Vault

pytestmark = pytest.mark.django_db

ONE, TWO = SecretValue(b"sk-first-0123456789"), SecretValue("sk-zweite-äöü-\t'\"".encode())


@pytest.fixture(params=["embedded", "azure", "azure_emulator"])
def vault(request: pytest.FixtureRequest) -> Vault:
    """Return each vault in turn."""
    if request.param == "embedded":
        return choosing.embedded()
    opened: Vault = request.getfixturevalue(request.param).open()
    return opened


@pytest.fixture
def key(acme: Tenant) -> Ref:
    """Return a reference to a new secret of Acme's."""
    return ref(acme)


def ref(tenant: Tenant, name: str = "openai_key") -> Ref:
    return Ref(tenant.pk.hex, name, ids.new_event_id())


def test_each_version_comes_back_and_the_newest_without_asking_for_one(vault: Vault, key: Ref) -> None:
    first, second = vault.put(key, ONE), vault.put(key, TWO)
    assert first.version != second.version
    assert max(len(first.version), len(second.version)) <= 64
    assert vault.get(key) == TWO
    assert vault.get(key, second.version) == TWO
    assert vault.get(key, first.version) == ONE


@pytest.mark.parametrize("name", ["a", "x_y-z", "a--b__c", "n" * 128, "x" * 128, "_" * 128])
def test_any_name_that_a_secret_may_have_will_do(vault: Vault, acme: Tenant, name: str) -> None:
    long = ref(acme, name)
    vault.put(long, ONE)
    assert vault.get(long) == ONE


@pytest.mark.parametrize("size", [1, 25_600])
def test_small_and_large_values_come_back(vault: Vault, key: Ref, size: int) -> None:
    vault.put(key, SecretValue(b"v" * size))
    assert vault.get(key).reveal() == b"v" * size


def test_what_nobody_wrote_is_missing(vault: Vault, key: Ref) -> None:
    with pytest.raises(SecretMissing):
        vault.get(key)
    with pytest.raises(SecretMissing):
        vault.disable(key)
    with pytest.raises(SecretMissing):
        vault.enable(key)
    with pytest.raises(SecretMissing):
        vault.recover(key)
    vault.delete(key)
    vault.purge(key)
    vault.put(key, ONE)
    with pytest.raises(SecretMissing):
        vault.get(key, "0" * 32)


def test_names_of_other_tenants_and_of_earlier_secrets_are_other_secrets(
    vault: Vault, acme: Tenant, evil_corp: Tenant
) -> None:
    key, theirs, later = ref(acme), ref(evil_corp), ref(acme)
    vault.put(key, ONE)
    with pytest.raises(SecretMissing):
        vault.get(theirs)
    with pytest.raises(SecretMissing):
        vault.get(later)
    vault.put(later, TWO)
    assert vault.get(key) == ONE


def test_the_list_tells_of_a_tenants_secrets_without_their_values(
    vault: Vault, acme: Tenant, evil_corp: Tenant
) -> None:
    keys = [ref(acme, name) for name in ("openai_key", "github", "pager-duty")]
    versions = {key.secret_id: vault.put(key, ONE).version for key in keys}
    vault.put(ref(evil_corp), ONE)
    vault.disable(keys[1])
    vault.delete(keys[2])

    told = {meta.secret_id: meta for meta in vault.list(acme.pk.hex)}

    assert {(meta.name, meta.enabled, meta.deleted) for meta in told.values()} == {
        ("openai_key", True, False),
        ("github", False, False),
        ("pager-duty", True, True),
    }
    assert {meta.tenant_id for meta in told.values()} == {acme.pk.hex}
    for key in keys[:2]:
        assert told[key.secret_id].version == versions[key.secret_id]
        assert abs(told[key.secret_id].created_at - clock.now()) < timedelta(minutes=1)
    assert b"sk-first" not in repr(told).encode()


def test_a_disabled_version_is_given_to_nobody_until_it_is_enabled(vault: Vault, key: Ref) -> None:
    first, second = vault.put(key, ONE), vault.put(key, TWO)
    vault.disable(key, first.version)
    with pytest.raises(SecretDisabled):
        vault.get(key, first.version)
    assert vault.get(key, second.version) == TWO

    vault.disable(key)
    for version in (None, first.version, second.version):
        with pytest.raises(SecretDisabled):
            vault.get(key, version)

    vault.enable(key, first.version)
    assert vault.get(key, first.version) == ONE
    with pytest.raises(SecretDisabled):
        vault.get(key)
    vault.enable(key)
    assert vault.get(key) == TWO


def test_what_is_deleted_is_given_to_nobody_and_can_be_recovered(vault: Vault, key: Ref) -> None:
    first = vault.put(key, ONE)
    vault.put(key, TWO)
    vault.delete(key)
    vault.delete(key)
    for version in (None, first.version):
        with pytest.raises(SecretMissing):
            vault.get(key, version)

    vault.recover(key)
    assert vault.get(key) == TWO
    assert vault.get(key, first.version) == ONE


def test_what_is_purged_is_gone(vault: Vault, key: Ref, acme: Tenant) -> None:
    vault.put(key, ONE)
    vault.purge(key)
    assert vault.get(key) == ONE, "only what is deleted is purged"

    vault.delete(key)
    vault.purge(key)
    vault.purge(key)
    with pytest.raises(SecretMissing):
        vault.recover(key)
    assert list(vault.list(acme.pk.hex)) == []


def test_a_vault_that_works_says_so(vault: Vault, key: Ref) -> None:
    vault.put(key, ONE)
    health = vault.health()
    assert health.ok, health
    assert health.message.endswith(".")
