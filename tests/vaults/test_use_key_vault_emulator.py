"""The client against a Key Vault that other people wrote: tokens that it checks itself, its faults, its refusals.

What every vault does is in `test_keep_vault_contract`, for the emulator too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tenants.vaults import azurecalls
from tenants.vaults.azurecalls import SecretDeleted
from tenants.vaults.contract import Ref, SecretDisabled, VaultDenied, VaultUnavailable
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from pathlib import Path

    from tenants.vaults.azure_key_vault import AzureKeyVault
    from tests.internet.certificates import Authority
    from tests.vaults.emulator import Emulator

KEY = Ref("0192f3c08a5b7c3d9e1f112233445566", "openai_key", "c0ffee00" * 4)
ONE, TWO = SecretValue(b"sk-first-0123456789"), SecretValue(b"sk-second-0123456789")
HOUR = 3600


@pytest.fixture
def vault(azure_emulator: Emulator) -> AzureKeyVault:
    """Return a vault that keeps one value."""
    opened = azure_emulator.open()
    opened.put(KEY, ONE)
    return opened


def test_a_throttled_vault_is_asked_again_when_it_says(azure_emulator: Emulator, vault: AzureKeyVault) -> None:
    azure_emulator.control("faults", throttleNextRequests=2)
    assert vault.get(KEY) == ONE
    assert len(azure_emulator.waits.taken) == 2
    assert min(azure_emulator.waits.taken) >= 1


def test_a_storm_is_told(azure_emulator: Emulator, vault: AzureKeyVault) -> None:
    azure_emulator.control("faults", throttleNextRequests=1000)
    with pytest.raises(VaultUnavailable, match="has too much to do") as away:
        vault.get(KEY)
    assert away.value.retry_after == 1
    assert sum(azure_emulator.waits.taken) <= azurecalls.TOTAL_S


def test_trouble_of_its_own_is_waited_out(azure_emulator: Emulator, vault: AzureKeyVault) -> None:
    azure_emulator.control("faults", rejectNextRequests=2)
    assert vault.get(KEY) == ONE


def test_a_token_that_has_expired_by_the_vaults_clock_is_not_taken(
    azure_emulator: Emulator, vault: AzureKeyVault
) -> None:
    azure_emulator.control("clock", offset=3 * HOUR)
    with pytest.raises(VaultDenied, match="does not accept our token"):
        vault.get(KEY)
    azure_emulator.control("clock", offset=0)
    azure_emulator.waits.at += azurecalls.RENEW_S
    assert vault.get(KEY) == ONE


def test_a_token_that_is_not_valid_yet_is_not_taken(azure_emulator: Emulator, vault: AzureKeyVault) -> None:
    azure_emulator.control("clock", offset=-3 * HOUR)
    with pytest.raises(VaultDenied, match="does not accept our token"):
        vault.get(KEY)


def test_a_wrong_client_secret_gets_no_token(azure_emulator: Emulator, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-secret")
    with pytest.raises(VaultDenied, match="gives us no token"):
        azure_emulator.open(client_secret_file=str(wrong)).get(KEY)


def test_whom_the_vault_does_not_let_in_is_refused(azure_emulator: Emulator, vault: AzureKeyVault) -> None:
    azure_emulator.control("permissions", **{"somebody-else": ["*"]})
    with pytest.raises(VaultDenied, match="give it the role Key Vault Secrets Officer"):
        vault.get(KEY)
    assert not vault.health().ok
    azure_emulator.control("permissions")
    assert vault.get(KEY) == ONE


def test_whom_nobody_vouches_for_gets_nothing(azure_emulator: Emulator, azure_authority: Authority) -> None:
    with pytest.raises(VaultUnavailable, match="a certificate that is not to be trusted"):
        azure_emulator.open(ca_file=str(azure_authority.file)).put(KEY, ONE)


def test_a_deleted_secret_is_in_the_way_until_it_is_purged(vault: AzureKeyVault) -> None:
    vault.delete(KEY)
    with pytest.raises(SecretDeleted):
        vault.put(KEY, TWO)
    vault.purge(KEY)
    vault.put(KEY, TWO)
    assert vault.get(KEY) == TWO


def test_purge_protection_is_told(azure_emulator: Emulator, vault: AzureKeyVault) -> None:
    azure_emulator.control("purge-protection", enabled=True)
    vault.delete(KEY)
    with pytest.raises(VaultDenied, match="has purge protection"):
        vault.purge(KEY)
    vault.recover(KEY)
    assert vault.get(KEY) == ONE


def test_expiry_is_held_to_though_the_vault_only_notes_it(azure_emulator: Emulator, vault: AzureKeyVault) -> None:
    azure_emulator.set_by_hand("shared", "sk-by-hand", {"exp": int(time.time()) - HOUR})
    azure_emulator.set_by_hand("early", "sk-by-hand", {"nbf": int(time.time()) + HOUR})
    azure_emulator.set_by_hand("fine", "sk-by-hand", {"exp": int(time.time()) + HOUR})
    for entry in ("shared", "early"):
        with pytest.raises(SecretDisabled):
            vault.get(Ref(KEY.tenant_id, entry, "d00df00d" * 4, entry=entry))
    assert vault.get(Ref(KEY.tenant_id, "fine", "d00df00d" * 4, entry="fine")).reveal() == b"sk-by-hand"
