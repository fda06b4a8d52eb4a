"""Which vaults there are, for whom, and what an operator hears whose configuration can't be meant so."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from corekit.errors import InvalidInput
from tenants.secrets import selectors
from tenants.vaults import choosing
from tenants.vaults.contract import VaultMisconfigured, VaultUnavailable
from tenants.vaults.masterkeys import master_key
from tenants.vaults.secretvalue import SecretValue
from tests.people import ApiClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.people import Person
    from tests.vaults.vault_double import FarVault

OPENAI = {"name": "openai-key", "value": "sk-openai-0123456789"}


def test_without_any_configuration_there_is_the_embedded_one() -> None:
    assert [*choosing.configured()] == ["embedded"]
    assert choosing.vault_for("acme", None).name == "embedded"


def test_a_configured_vault_stands_beside_it(far: FarVault) -> None:
    assert sorted(choosing.configured()) == ["embedded", "far"]
    assert choosing.vault_for("acme", "far") is far
    assert choosing.vault_for("acme", None).name == "embedded"


def test_the_default_may_be_another_one(far: FarVault, configure: Callable[..., None]) -> None:
    configure('[far]\nkind = "far"\n', default_vault="far")
    assert choosing.vault_for("acme", None) is far


def test_a_vault_may_be_for_some_tenants_only(
    far: FarVault, configure: Callable[..., None], alice: Person, mallory: Person
) -> None:
    configure('[far]\nkind = "far"\ntenants = ["acme"]\n')
    assert choosing.vault_for("acme", "far") is far
    with pytest.raises(InvalidInput, match="There is no such vault"):
        choosing.vault_for("evil-corp", "far")
    assert selectors.vaults_for(alice.actor)["vaults"] == ["embedded", "far"]
    assert selectors.vaults_for(mallory.actor)["vaults"] == ["embedded"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is no TOML"),
        ('embedded = "x"', "can't be the name of a vault"),
        ('[embedded]\nkind = "far"', "can't be the name of a vault"),
        ('[Far]\nkind = "far"', "can't be the name of a vault"),
        ('["a b"]\nkind = "far"', "can't be the name of a vault"),
        ("[far]", "The vault far has the kind None: there is far"),
        ('[far]\nkind = "near"', "The vault far has the kind 'near': there is far"),
        ('[far]\nkind = "far"\ntenants = "acme"', "tenants must be a list of slugs"),
        ('[far]\nkind = "far"\ntenants = [1]', "tenants must be a list of slugs"),
    ],
)
def test_a_mistake_is_named(far: FarVault, configure: Callable[..., None], text: str, said: str) -> None:
    configure(text)
    with pytest.raises(VaultMisconfigured, match=said):
        choosing.configured()


def test_a_default_that_is_not_there_is_named(configure: Callable[..., None]) -> None:
    configure(default_vault="far")
    with pytest.raises(VaultMisconfigured, match="GATEHOUSE_DEFAULT_VAULT names far"):
        choosing.configured()


def test_the_master_keys_may_lie_in_another_vault(far: FarVault, configure: Callable[..., None]) -> None:
    key = hashlib.sha256(b"far away").digest()
    far.entries["master"] = SecretValue(key.hex().encode())
    configure('[far]\nkind = "far"\n', vault_key_text=None, vault_key_secret="far/master")

    masters = choosing.embedded().masters
    assert masters.newest().id == master_key(key).id

    # Once they are known, the other vault may be away; a key that is not known is looked for there again.
    far.error = VaultUnavailable()
    assert masters.newest().id == master_key(key).id
    far.error = None
    another = hashlib.sha256(b"another").digest()
    far.entries["master"] = SecretValue(f"{another.hex()} {key.hex()}".encode())
    assert masters.named(master_key(another).id).key == another


def test_master_keys_that_lie_in_a_vault_that_is_not_there_are_named(configure: Callable[..., None]) -> None:
    configure(vault_key_text=None, vault_key_secret="far/master")
    with pytest.raises(VaultMisconfigured, match="GATEHOUSE_VAULT_KEY_SECRET: the vault far is not configured"):
        choosing.embedded()


# As a caller of the APIs hears it.


def test_a_vault_that_is_away_is_a_503_that_says_so_and_when_to_come_back(alice: Person, far: FarVault) -> None:
    api = ApiClient(alice.key())
    far.error = VaultUnavailable("The vault far does not answer.", retry_after=7)

    answer = api.post("/api/v1/secrets", OPENAI | {"vault": "far"})

    assert (answer.status_code, answer["Retry-After"]) == (503, "7")
    told = answer.json()  # type: ignore[attr-defined]
    assert (told["code"], told["detail"]) == ("vault_unavailable", "The vault far does not answer.")
    assert api.get("/api/v1/secrets").json()["items"] == []  # type: ignore[attr-defined]


def test_the_sdks_hear_the_same(alice: Person, far: FarVault, configure: Callable[..., None]) -> None:
    configure('[far]\nkind = "far"\n', default_vault="far")
    far.error = VaultUnavailable("The vault far does not answer.", retry_after=7)

    answer = ApiClient(alice.key()).post("/secrets", OPENAI)

    assert (answer.status_code, answer["Retry-After"]) == (503, "7")
    told = answer.json()  # type: ignore[attr-defined]
    assert (told["code"], told["error_code"]) == (503, "vault_unavailable")
    assert told["message"] == "The vault far does not answer."
