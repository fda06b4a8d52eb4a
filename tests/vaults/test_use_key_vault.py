"""Azure Key Vault through its real client: what is its own, beside what every vault does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from corekit.errors import Conflict, InvalidInput
from tenants.vaults.azurecalls import SecretDeleted
from tenants.vaults.azurenames import entry_of
from tenants.vaults.contract import (
    Ref,
    SecretDisabled,
    SecretMissing,
    SecretUnreadable,
    VaultDenied,
    VaultMisconfigured,
    VaultUnavailable,
)
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from tests.vaults.azure import Azure

ACME, EVIL = "0192f3c08a5b7c3d9e1f112233445566", "0192f3c08a5b7c3d9e1fffffffffffff"
KEY = Ref(ACME, "openai_key", "c0ffee00" * 4)
ONE, TWO = SecretValue(b"sk-first-0123456789"), SecretValue(b"sk-second-0123456789")


def by_hand(entry: str, tenant_id: str = ACME) -> Ref:
    """Return a reference to an entry that an operator made."""
    return Ref(tenant_id, "shared", "d00df00d" * 4, entry=entry)


def test_an_entry_says_whose_it_is_in_its_name_and_its_tags(azure: Azure) -> None:
    azure.open().put(KEY, ONE)
    [entry] = azure.cloud.entries(azure.vault_name).values()
    assert entry.name == f"{ACME}--openaix-key--{'c0ffee00' * 4}"
    assert entry.versions[0].tags == {
        "gatehouse-tenant": ACME,
        "gatehouse-name": "openai_key",
        "gatehouse-secret": "c0ffee00" * 4,
    }


def test_one_tenants_secrets_may_lie_in_two_vaults(azure: Azure) -> None:
    here, there = azure.open("here"), azure.open("there", url="https://keys-of-eu.vault.azure.net")
    here.put(KEY, ONE)
    there.put(KEY, TWO)
    assert (here.get(KEY), there.get(KEY)) == (ONE, TWO)
    assert (here.name, there.name) == ("here", "there")


def test_a_token_is_asked_for_once_and_used_for_all(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    for _ in range(5):
        vault.get(KEY)
    assert azure.cloud.token_times == 1
    assert len(azure.asked("PUT")) == 2, "the first request goes without a token and without the value"


def test_the_first_request_carries_no_value(azure: Azure) -> None:
    azure.open().put(KEY, ONE)
    assert azure.cloud.lengths[:1] == [0]


# --- what an operator keeps in the vault


def test_an_operators_entry_is_read_and_never_written(azure: Azure) -> None:
    azure.cloud.set(azure.vault_name, "Shared-Key", "sk-by-hand")
    vault, ref = azure.open(), by_hand("shared-key")
    assert vault.get(ref).reveal() == b"sk-by-hand"

    calls: tuple[Any, ...] = (vault.delete, vault.purge, vault.recover, vault.disable, vault.enable)
    for call in calls:
        with pytest.raises(Conflict, match="an operator keeps in the vault"):
            call(ref)
    with pytest.raises(Conflict):
        vault.put(ref, TWO)
    assert azure.cloud.entries(azure.vault_name)["shared-key"].versions[-1].value == "sk-by-hand"


def test_a_secret_of_a_tenants_is_no_operators_entry(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    for tenant in (EVIL, ACME):
        with pytest.raises(SecretMissing):
            vault.get(by_hand(entry_of(KEY), tenant))


@pytest.mark.parametrize("entry", ["../secrets/x", "a_b", "a" * 128, "a/b", "a?x=1"])
def test_an_entry_that_no_vault_could_have_is_not_asked_for(azure: Azure, entry: str) -> None:
    with pytest.raises(SecretMissing):
        azure.open().get(by_hand(entry))
    assert azure.cloud.asked == []


def test_an_entry_that_was_put_in_anothers_place_is_not_given_out(azure: Azure) -> None:
    vault, theirs = azure.open(), Ref(EVIL, "openai_key", "bad0bad0" * 4)
    vault.put(theirs, TWO)
    entries = azure.cloud.entries(azure.vault_name)
    entries[entry_of(KEY)] = entries[entry_of(theirs)]
    with pytest.raises(SecretUnreadable):
        vault.get(KEY)


def test_a_value_that_was_set_by_hand_without_tags_counts(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    azure.cloud.set(azure.vault_name, entry_of(KEY), "sk-rotated-in-the-portal")
    assert vault.get(KEY).reveal() == b"sk-rotated-in-the-portal"
    [meta] = vault.list(ACME)
    assert (meta.name, meta.secret_id) == (KEY.name, KEY.secret_id)


def test_the_list_leaves_out_what_is_not_ours(azure: Azure) -> None:
    vault = azure.open()
    for number in range(5):
        azure.cloud.set(azure.vault_name, f"of-somebody-{number}", "v")
        vault.put(Ref(ACME, f"key-{number}", f"{number:032x}"), ONE)
        vault.put(Ref(EVIL, f"key-{number}", f"{number:032x}"), ONE)
    assert sorted(meta.name for meta in vault.list(ACME)) == [f"key-{number}" for number in range(5)]


# --- values


@pytest.mark.parametrize("size", [25_601, 65_536])
def test_a_value_that_is_too_large_is_refused_before_it_is_sent(azure: Azure, size: int) -> None:
    with pytest.raises(InvalidInput, match="takes values of 25600 bytes at most") as refused:
        azure.open().put(KEY, SecretValue(b"v" * size))
    assert (refused.value.status, refused.value.field) == (400, "value")
    assert azure.cloud.asked == []


def test_a_value_that_is_no_text_is_refused_before_it_is_sent(azure: Azure) -> None:
    with pytest.raises(InvalidInput, match="takes text only"):
        azure.open().put(KEY, SecretValue(b"\xff\xfe"))
    assert azure.cloud.asked == []


# --- deleting


def test_a_deleted_secret_is_in_the_way_until_it_is_recovered_or_purged(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    vault.delete(KEY)
    with pytest.raises(SecretDeleted, match="recover it, or purge it there") as refused:
        vault.put(KEY, TWO)
    assert (refused.value.status, refused.value.code) == (409, "secret_deleted")

    vault.purge(KEY)
    vault.put(KEY, TWO)
    assert vault.get(KEY) == TWO


def test_a_deletion_that_takes_a_while_is_waited_for(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    azure.cloud.lag = 3
    vault.delete(KEY)
    assert azure.waits.taken == [0.2, 0.4, 0.8]
    vault.purge(KEY)
    assert azure.cloud.entries(azure.vault_name) == {}


def test_a_deletion_that_takes_forever_is_not(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    azure.cloud.lag = 1000
    vault.delete(KEY)
    assert sum(azure.waits.taken) <= 8
    with pytest.raises(SecretMissing):
        vault.get(KEY)


def test_a_vault_with_purge_protection_says_so(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    vault.delete(KEY)
    azure.cloud.purge_protection = True
    with pytest.raises(VaultDenied, match="has purge protection"):
        vault.purge(KEY)
    vault.recover(KEY)
    assert vault.get(KEY) == ONE


def test_what_is_past_its_time_can_not_be_recovered(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, ONE)
    vault.delete(KEY)
    azure.cloud.skew = 91 * 86400
    with pytest.raises(SecretMissing):
        vault.recover(KEY)
    vault.put(KEY, TWO)
    assert vault.get(KEY) == TWO


def test_while_a_secret_is_being_deleted_the_vault_is_asked_again(azure: Azure) -> None:
    from tests.vaults.keyvault import Fault

    vault = azure.open()
    vault.put(KEY, ONE)
    busy = Fault(409, code="Conflict", inner="ObjectIsBeingDeleted")
    azure.cloud.faults = [busy, busy]
    vault.put(KEY, TWO)
    assert vault.get(KEY) == TWO
    azure.cloud.faults = [busy] * 100
    with pytest.raises(VaultUnavailable, match="still deleting or recovering"):
        vault.put(KEY, ONE)


# --- the time in which a secret counts


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("begins", "ends"), [(3600, None), (None, -1), (-7200, -3600), (3600, 7200)])
def test_outside_of_its_time_a_secret_is_given_to_nobody(
    azure: Azure,
    *,
    strict: bool,
    begins: int | None,
    ends: int | None,
) -> None:
    azure.cloud.strict_times = strict
    now = int(time.time())
    times = {"nbf": None if begins is None else now + begins, "exp": None if ends is None else now + ends}
    kept = azure.cloud.set(azure.vault_name, "shared", "sk-too-early-or-late", **times)
    vault = azure.open()
    for version in (None, kept.version):
        with pytest.raises(SecretDisabled):
            vault.get(by_hand("shared"), version)


def test_within_its_time_a_secret_is_given_out(azure: Azure) -> None:
    now = int(time.time())
    azure.cloud.set(azure.vault_name, "shared", "sk-in-time", nbf=now - 5, exp=now + 3600)
    assert azure.open().get(by_hand("shared")).reveal() == b"sk-in-time"


def test_the_time_is_the_vaults(azure: Azure) -> None:
    azure.cloud.skew = 7200
    azure.cloud.set(azure.vault_name, "shared", "sk-by-its-clock", nbf=azure.cloud.now() - 5)
    azure.cloud.set(azure.vault_name, "gone", "sk-by-its-clock", exp=azure.cloud.now() - 5)
    vault = azure.open()
    assert vault.get(by_hand("shared")).reveal() == b"sk-by-its-clock"
    with pytest.raises(SecretDisabled):
        vault.get(by_hand("gone"))


# --- what is no Key Vault


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.vault.azure.net",
        "https://acme.vault.azure.net.evil.example",
        "https://acme.vault.azure.net:8443",
        "https://user@acme.vault.azure.net",
        "https://evil.example/.vault.azure.net",
        "https://acme.vault.azure.net/secrets",
        "https://acme.vault.azure.net?x=1",
        "https://acme.vault.azure.net#x",
        "https://a.b.vault.azure.net",
        "https://.vault.azure.net",
        "https://vault.azure.net",
        "https://evilvault.azure.net",
        "https://acme.vault.azure.net\\@evil.example",
        "https://127.0.0.1",
        "acme.vault.azure.net",
    ],
)
def test_a_token_goes_to_a_key_vault_only(azure: Azure, url: str) -> None:
    with pytest.raises(VaultMisconfigured, match="url must be https://NAME followed by"):
        azure.open(url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://acme-keys.vault.azure.net",
        "https://ACME-keys.vault.azure.net/",
        "https://acme.vault.azure.cn",
        "https://acme.vault.usgovcloudapi.net",
    ],
)
def test_each_of_azures_clouds_will_do(azure: Azure, url: str) -> None:
    assert azure.open(url=url).name == "azure"
    assert azure.cloud.asked == [], "nothing is connected to before it is needed"


def test_a_vault_that_sends_us_elsewhere_for_tokens_gets_none(azure: Azure) -> None:
    azure.cloud.resource = "https://evil.example"
    with pytest.raises(VaultMisconfigured, match="is no Key Vault: check its url"):
        azure.open().get(KEY)
    assert azure.cloud.token_times == 0
