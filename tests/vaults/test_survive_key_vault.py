"""Trouble with a Key Vault: it has too much to do, is away, refuses us, or is somebody else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tenants.vaults import azurecalls
from tenants.vaults.contract import (
    Ref,
    SecretDisabled,
    VaultDenied,
    VaultMisconfigured,
    VaultUnavailable,
)
from tenants.vaults.secretvalue import SecretValue
from tests.internet.certificates import Authority
from tests.vaults.keyvault import AUTHORITY, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tenants.vaults.azure_key_vault import AzureKeyVault
    from tests.vaults.azure import Azure

KEY = Ref("0192f3c08a5b7c3d9e1f112233445566", "openai_key", "c0ffee00" * 4)
ONE, TWO = SecretValue(b"sk-first-0123456789"), SecretValue(b"sk-second-0123456789")


@pytest.fixture
def vault(azure: Azure) -> AzureKeyVault:
    """Return a vault that keeps one value, and was asked for nothing else."""
    opened = azure.open()
    opened.put(KEY, ONE)
    azure.cloud.asked.clear()
    return opened


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Return what lets a server that hangs go on, at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def throttled(seconds: str = "2") -> Fault:
    return Fault(429, {"Retry-After": seconds}, "Throttled")


# --- too much to do


def test_a_vault_that_has_too_much_to_do_is_asked_again_when_it_says(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [throttled("2"), throttled("3")]
    assert vault.get(KEY) == ONE
    assert azure.waits.taken == [2, 3]
    assert len(azure.asked("GET")) == 3


def test_a_value_is_written_once_whatever_came_before(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [throttled(), throttled()]
    vault.put(KEY, TWO)
    [entry] = azure.cloud.entries(azure.vault_name).values()
    assert [kept.value for kept in entry.versions] == ["sk-first-0123456789", "sk-second-0123456789"]


def test_in_a_storm_callers_are_told_when_to_come_back(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [throttled("3")] * 100
    with pytest.raises(VaultUnavailable, match="has too much to do") as away:
        vault.get(KEY)
    assert (away.value.status, away.value.retry_after) == (503, 3)
    assert azure.waits.taken == [3, 3]


@pytest.mark.parametrize(("told", "answered"), [("9", 9), ("60", 60), ("86400", 60)])
def test_nobody_waits_for_longer_than_is_bearable(azure: Azure, vault: AzureKeyVault, told: str, answered: int) -> None:
    azure.cloud.faults = [throttled(told)]
    with pytest.raises(VaultUnavailable) as away:
        vault.get(KEY)
    assert away.value.retry_after == answered
    assert azure.waits.taken == []


def test_a_storm_is_left_alone_until_it_is_over(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [throttled("30")]
    with pytest.raises(VaultUnavailable):
        vault.get(KEY)
    for _ in range(20):
        azure.waits.at += 1
        with pytest.raises(VaultUnavailable) as away:
            vault.get(KEY)
    assert away.value.retry_after == 10
    assert len(azure.asked("GET")) == 1
    azure.waits.at += 10
    assert vault.get(KEY) == ONE


@pytest.mark.parametrize("told", ["", "soon", "-1", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_wait_that_is_no_number_of_seconds_is_ours_to_choose(azure: Azure, vault: AzureKeyVault, told: str) -> None:
    azure.cloud.faults = [throttled(told), throttled(told)]
    assert vault.get(KEY) == ONE
    assert [round(seconds, 1) for seconds in azure.waits.taken] == pytest.approx([0.25, 0.5], abs=0.11)


def test_many_at_once_in_a_storm_all_get_their_value_in_the_end(azure: Azure, vault: AzureKeyVault) -> None:
    azure.waits.pace = 0
    azure.cloud.faults = [throttled("1")] * 10
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: vault.get(KEY), range(32)))
    assert found == [ONE] * 32


# --- away


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_trouble_that_passes_is_waited_out(azure: Azure, vault: AzureKeyVault, status: int) -> None:
    azure.cloud.faults = [Fault(status, code="InternalServerError")] * 2
    assert vault.get(KEY) == ONE
    assert len(azure.asked("GET")) == 3


def test_trouble_that_stays_is_told(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [Fault(500, code="InternalServerError")] * 100
    with pytest.raises(VaultUnavailable, match="has trouble of its own") as away:
        vault.get(KEY)
    assert (away.value.status, away.value.retry_after) == (503, 5)
    assert sum(azure.waits.taken) <= azurecalls.TOTAL_S


def test_a_write_that_may_have_been_carried_out_is_not_repeated(azure: Azure, vault: AzureKeyVault) -> None:
    for fault in (Fault(500, code="InternalServerError"), Fault(drop=True)):
        azure.cloud.faults = [fault]
        azure.cloud.asked.clear()
        with pytest.raises(VaultUnavailable):
            vault.put(KEY, TWO)
        assert len(azure.asked("PUT")) == 1


def test_a_connection_that_breaks_is_made_again(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [Fault(drop=True)] * 2
    assert vault.get(KEY) == ONE


def test_a_vault_that_hangs_is_given_up(
    azure: Azure, vault: AzureKeyVault, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azurecalls, "READ_S", 0.1)
    azure.cloud.faults = [Fault(hold=held)] * 100
    with pytest.raises(VaultUnavailable, match="does not answer"):
        vault.get(KEY)
    assert sum(azure.waits.taken) <= azurecalls.TOTAL_S


def test_a_way_that_leads_nowhere_is_a_vault_that_is_away(
    azure: Azure, vault: AzureKeyVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(VaultUnavailable, match="does not answer"):
        vault.get(KEY)


def test_nonsense_is_no_answer(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [Fault(raw=b"<html>sign in to the hotel's network</html>")] * 100
    with pytest.raises(VaultUnavailable, match="talks nonsense"):
        vault.get(KEY)


def test_a_redirect_is_not_followed(azure: Azure, vault: AzureKeyVault) -> None:
    away = Fault(307, {"Location": f"https://other{azure.vault_name}.vault.azure.net/secrets/x"})
    azure.cloud.faults = [away] * 100
    with pytest.raises(VaultUnavailable):
        vault.get(KEY)
    assert {path.partition("?")[0].split("/")[1] for path in azure.asked("GET")} == {"secrets"}
    assert not any("/secrets/x" in path for path in azure.asked("GET"))


# --- somebody else


def test_whom_nobody_vouches_for_gets_nothing(azure: Azure, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    with pytest.raises(VaultUnavailable, match="a certificate that is not to be trusted") as away:
        azure.open(ca_file=str(stranger.file)).put(KEY, ONE)
    assert away.value.retry_after == 30
    assert (azure.cloud.asked, azure.waits.taken) == ([], [])


def test_without_a_file_of_authorities_only_the_public_ones_count(azure: Azure) -> None:
    with pytest.raises(VaultUnavailable, match="or set ca_file"):
        azure.open(ca_file=None).put(KEY, ONE)
    assert azure.cloud.asked == []


def test_a_certificate_for_another_name_is_not_taken(azure: Azure, azure_authority: Authority) -> None:
    with azure.elsewhere(AUTHORITY), pytest.raises(VaultUnavailable, match="certificate"):
        azure.open().get(KEY)
    assert azure.cloud.asked == []


# --- refused


def test_a_vault_that_does_not_let_us_in_says_what_to_do(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.denied = {"get", "list"}
    with pytest.raises(VaultDenied, match="give it the role Key Vault Secrets Officer there") as denied:
        vault.get(KEY)
    assert (denied.value.status, denied.value.code) == (503, "vault_denied")
    assert azure.waits.taken == []
    azure.cloud.denied = {"set"}
    with pytest.raises(VaultDenied):
        vault.put(KEY, TWO)
    assert vault.get(KEY) == ONE


def test_a_firewall_is_named(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [Fault(403, code="Forbidden", inner="ForbiddenByFirewall")] * 2
    with pytest.raises(VaultDenied, match="has a firewall that refuses this host"):
        vault.get(KEY)


def test_a_disabled_secret_is_told_from_a_refusal_whatever_its_words(azure: Azure, vault: AzureKeyVault) -> None:
    vault.disable(KEY)
    azure.cloud.faults = [Fault(403, code="Forbidden", text="In other words.")]
    with pytest.raises(SecretDisabled):
        vault.get(KEY)
    vault.enable(KEY)
    azure.cloud.faults = [Fault(403, code="Forbidden", text="In other words.")]
    with pytest.raises(VaultDenied):
        vault.get(KEY)
    azure.cloud.denied = {"list"}
    azure.cloud.faults = [Fault(403, code="Forbidden", text="Operation get is not allowed on a disabled secret.")]
    with pytest.raises(SecretDisabled):
        vault.get(KEY)


def test_what_the_vault_does_not_understand_is_told_by_its_code(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.faults = [Fault(400, code="BadParameter", text="sk-first-0123456789 is bad")]
    with pytest.raises(VaultDenied, match=r"does not take what we ask for \(BadParameter\): look at the log") as denied:
        vault.get(KEY)
    assert "sk-first" not in str(denied.value)


# --- tokens


def test_a_token_that_runs_out_is_replaced(azure: Azure) -> None:
    azure.cloud.token_life_s = 200
    vault = azure.open()
    vault.put(KEY, ONE)
    vault.get(KEY)
    assert azure.cloud.token_times >= 2, "the client asks for a new one five minutes before"


def test_a_token_that_the_vault_takes_no_more_is_replaced_at_once(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.forget_tokens()
    assert vault.get(KEY) == ONE
    assert azure.cloud.token_times == 2


def test_a_vault_that_takes_no_token_is_not_begged(azure: Azure, vault: AzureKeyVault) -> None:
    azure.cloud.audience = "https://management.azure.com"
    azure.cloud.forget_tokens()
    with pytest.raises(VaultDenied, match="does not accept our token: check its credential's tenant"):
        vault.get(KEY)
    asked = azure.cloud.token_times
    for _ in range(5):
        with pytest.raises(VaultDenied):
            vault.get(KEY)
    assert azure.cloud.token_times == asked
    azure.cloud.audience = "https://vault.azure.net"
    azure.waits.at += azurecalls.RENEW_S
    assert vault.get(KEY) == ONE


def test_many_at_once_with_a_token_that_is_refused_all_get_their_value(azure: Azure, vault: AzureKeyVault) -> None:
    for _ in range(3):
        azure.cloud.forget_tokens()
        azure.waits.at += azurecalls.RENEW_S
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(lambda _: vault.get(KEY), range(48)))
        assert found == [ONE] * 48


def test_a_wrong_client_secret_is_told_by_azures_code(azure: Azure) -> None:
    azure.cloud.client_secrets.clear()
    with pytest.raises(VaultDenied, match=r"Azure gives us no token \(AADSTS7000215\): check its credential"):
        azure.open().get(KEY)
    assert azure.waits.taken == []


@pytest.mark.parametrize("fault", [Fault(503), Fault(429, {"Retry-After": "3600"}), Fault(drop=True)])
def test_nobody_gives_out_tokens(azure: Azure, fault: Fault) -> None:
    azure.cloud.token_faults = [fault] * 100
    with pytest.raises(VaultUnavailable, match="Nobody gives out tokens for the vault azure at the moment"):
        azure.open().get(KEY)
    assert sum(azure.waits.taken) <= azurecalls.TOTAL_S


def test_a_pause_of_who_gives_out_tokens_is_survived(azure: Azure) -> None:
    vault = azure.open()
    azure.cloud.token_faults = [Fault(503), Fault(drop=True)]
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE


# --- clocks


@pytest.mark.parametrize(("skew", "shown"), [(7200.5, "7200 s behind"), (-7200.5, "7201 s ahead")])
def test_a_clock_that_is_wrong_is_named(azure: Azure, vault: AzureKeyVault, skew: float, shown: str) -> None:
    azure.cloud.skew = skew
    azure.cloud.audience = "https://management.azure.com"
    azure.cloud.forget_tokens()
    with pytest.raises(VaultDenied, match=f"\\(this host's clock is {shown}\\)"):
        vault.get(KEY)


def test_a_wrong_clock_alone_keeps_no_value_back(azure: Azure) -> None:
    azure.cloud.skew = 7200
    vault = azure.open()
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE
    health = vault.health()
    assert (health.ok, health.fix) == (False, "set the clock")
    assert "answers, but this host's clock is 7" in health.message


# --- health


def test_health_says_what_is_wrong_and_what_to_do(azure: Azure, vault: AzureKeyVault) -> None:
    assert vault.health().ok
    azure.cloud.denied = {"get"}
    health = vault.health()
    assert (health.ok, health.message) == (False, "The vault azure refuses our identity.")
    assert health.fix == "give it the role Key Vault Secrets Officer there"

    azure.cloud.faults = [Fault(500)] * 100
    assert vault.health().message == "The vault azure has trouble of its own."
    azure.cloud.faults = []
    azure.cloud.resource = "https://evil.example"
    azure.cloud.forget_tokens()
    assert vault.health().fix == "check its url"


def test_misconfigured_is_not_away(azure: Azure) -> None:
    azure.cloud.resource = "https://evil.example"
    with pytest.raises(VaultMisconfigured) as wrong:
        azure.open().get(KEY)
    assert (wrong.value.status, wrong.value.should_retry) == (503, False)
