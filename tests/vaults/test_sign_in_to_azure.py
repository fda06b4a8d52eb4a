"""How we prove to Azure who we are: the way that the operator named, and no other."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from tenants.vaults import choosing
from tenants.vaults.contract import Ref, VaultDenied, VaultMisconfigured, VaultUnavailable
from tenants.vaults.secretvalue import SecretValue
from tests.vaults.azure import CLIENT_SECRET
from tests.vaults.keyvault import CLIENT, DOMAIN, IDENTITY_HEADER, TENANT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tenants.models import Tenant
    from tests.vaults.azure import Azure

KEY = Ref("0192f3c08a5b7c3d9e1f112233445566", "openai_key", "c0ffee00" * 4)
ONE = SecretValue(b"sk-first-0123456789")
NOTHING_ELSE: dict[str, Any] = {"tenant_id": None, "client_id": None, "client_secret_file": None}


@pytest.fixture
def app_service(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a host that Azure gave an identity by its environment."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{azure.identity_port}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)


# --- managed identity


@pytest.mark.usefixtures("app_service")
def test_a_hosts_own_identity_needs_no_secret(azure: Azure) -> None:
    vault = azure.open(credential="managed_identity", **NOTHING_ELSE)
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE
    assert azure.cloud.token_times == 1


@pytest.mark.usefixtures("app_service")
def test_one_of_several_identities_is_named(azure: Azure) -> None:
    azure.cloud.identities = {CLIENT}
    vault = azure.open(credential="managed_identity", **NOTHING_ELSE | {"client_id": CLIENT})
    vault.put(KEY, ONE)
    with pytest.raises(VaultDenied):
        azure.open(credential="managed_identity", **NOTHING_ELSE).get(KEY)


def test_a_machine_asks_at_its_own_address(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{azure.identity_port}")
    vault = azure.open(credential="managed_identity", **NOTHING_ELSE)
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE


def test_a_host_without_an_identity_is_told_so(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    with pytest.raises(VaultUnavailable, match="Nobody gives out tokens for the vault azure at the moment"):
        azure.open(credential="managed_identity", **NOTHING_ELSE).get(KEY)
    assert sum(azure.waits.taken) <= 8


# --- workload identity


def test_a_pod_shows_its_clusters_token(azure: Azure, tmp_path: Path) -> None:
    file = tmp_path / "federated-token"
    file.write_text("token-of-the-cluster")
    azure.cloud.assertions = {"token-of-the-cluster"}
    options: dict[str, Any] = {"credential": "workload_identity", "token_file": str(file), "client_secret_file": None}
    vault = azure.open(**options)
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE

    azure.cloud.assertions = set()
    with pytest.raises(VaultDenied, match="AADSTS7000215"):
        azure.open(**options).get(KEY)


def test_what_the_cluster_tells_a_pod_need_not_be_repeated(
    azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "federated-token"
    file.write_text("token-of-the-cluster")
    azure.cloud.assertions = {"token-of-the-cluster"}
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
    azure.open(credential="workload_identity", **NOTHING_ELSE).put(KEY, ONE)


# --- client secret


def test_a_client_secret_comes_from_a_file_and_may_change(azure: Azure) -> None:
    azure.cloud.token_life_s = 200
    vault = azure.open()
    vault.put(KEY, ONE)
    azure.cloud.client_secrets[CLIENT] = "rotated-client-secret"
    azure.cloud.forget_tokens()
    with pytest.raises(VaultDenied):
        vault.get(KEY)

    (azure.folder / "client-secret").write_text("rotated-client-secret\n")
    assert vault.get(KEY) == ONE


def test_a_file_that_is_gone_is_named(azure: Azure) -> None:
    azure.cloud.token_life_s = 200
    vault = azure.open()
    vault.put(KEY, ONE)
    (azure.folder / "client-secret").unlink()
    with pytest.raises(VaultMisconfigured, match=r"client_secret_file .* can't be read \(No such file"):
        vault.get(KEY)
    assert not vault.health().ok


def test_the_secret_itself_is_no_option(azure: Azure) -> None:
    with pytest.raises(VaultMisconfigured, match="knows no client_secret") as refused:
        azure.open(client_secret=CLIENT_SECRET)
    assert CLIENT_SECRET not in str(refused.value)


# --- KEY_VAULT_URL


@pytest.fixture
def key_vault_url(azure: Azure, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure nothing but the one URL."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azure.ca_file))
    configure("", key_vault_url=f"https://{azure.vault_name}{DOMAIN}/")


@pytest.mark.usefixtures("key_vault_url", "app_service")
def test_one_url_makes_a_vault_of_the_hosts_identity(azure: Azure) -> None:
    vault = choosing.vault_named("azure")
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE
    assert vault.health().ok


@pytest.mark.usefixtures("key_vault_url")
def test_one_url_takes_an_application_from_the_environment(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", CLIENT_SECRET)
    vault = choosing.vault_named("azure")
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE


@pytest.mark.usefixtures("key_vault_url")
@pytest.mark.parametrize("named", ["", "prod"])
def test_nobodys_own_sign_in_is_ever_used(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    ran = tmp_path / "ran"
    for tool in ("az", "azd", "pwsh", "powershell"):
        program = tmp_path / tool
        program.write_text(f"#!/bin/sh\necho {tool} >> {ran}\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", named)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    with pytest.raises((VaultDenied, VaultUnavailable)):
        choosing.vault_named("azure").get(KEY)
    assert not ran.exists()


@pytest.mark.usefixtures("key_vault_url")
@pytest.mark.parametrize("named", ["dev", "AzureCliCredential", "visualstudiocodecredential"])
def test_developers_sign_ins_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", named)
    with pytest.raises(VaultMisconfigured, match="is for developers: set it to prod"):
        choosing.vault_named("azure")


# --- the file of vaults


def test_a_file_names_vaults_and_who_may_use_them(azure: Azure, configure: Callable[..., None]) -> None:
    options = azure.options(url=f"https://{azure.vault_name}{DOMAIN}")
    table = "\n".join(f'{name} = "{value}"' for name, value in options.items())
    configure(f'[eu]\nkind = "azure_key_vault"\ntenants = ["acme"]\n{table}\n')
    vault = choosing.vault_for("acme", "eu")
    vault.put(KEY, ONE)
    assert vault.get(KEY) == ONE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"credential": None}, "needs credential"),
        ({"credential": "azure_cli"}, "credential must be one of managed_identity, workload_identity, client_secret"),
        ({"url": None}, "needs url"),
        ({"url": 7}, "url must be a text"),
        ({"tenant_id": ""}, "needs tenant_id"),
        ({"client_id": None}, "needs client_id"),
        ({"client_secret_file": None}, "needs client_secret_file"),
        ({"client_secret_file": "/nowhere/secret"}, "client_secret_file /nowhere/secret can't be read"),
        ({"client_secret_file": "/dev/null"}, "client_secret_file /dev/null is empty"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file /nowhere/ca.pem can't be read"),
        ({"tenant_id": "no tenant/at all"}, "are not what Azure calls so"),
        ({"verify": "no"}, "knows no verify"),
        ({"verify_challenge_resource": "no"}, "knows no verify_challenge_resource"),
        ({"connection_verify": "no"}, "knows no connection_verify"),
        ({"credential": "managed_identity"}, "knows no client_secret_file, tenant_id"),
    ],
)
def test_what_is_left_out_or_mistyped_is_named(azure: Azure, change: dict[str, Any], said: str) -> None:
    with pytest.raises(VaultMisconfigured, match=said):
        azure.open(**change)
    assert azure.cloud.asked == []


# --- the embedded vault's master key


@pytest.mark.django_db
@pytest.mark.usefixtures("app_service")
def test_the_embedded_vaults_master_key_may_lie_in_a_key_vault(
    azure: Azure, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, acme: Tenant
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azure.ca_file))
    azure.cloud.set(azure.vault_name, "gatehouse-master-key", secrets.token_hex(32))
    configure(
        "",
        key_vault_url=f"https://{azure.vault_name}{DOMAIN}",
        vault_key_text=None,
        vault_key_secret="azure/gatehouse-master-key",
    )
    vault, key = choosing.embedded(), Ref(acme.pk.hex, "openai_key", "c0ffee00" * 4)
    vault.put(key, ONE)
    for _ in range(3):
        assert vault.get(key) == ONE
    assert len([path for path in azure.asked("GET") if "gatehouse-master-key" in path]) == 2, (
        "and one asked for a token"
    )
    assert set(azure.cloud.entries(azure.vault_name)) == {"gatehouse-master-key"}
