"""`manage.py secrets`: values come from stdin, and none is ever shown."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from tenants.secretmodels import Secret
from tenants.vaults import reveal
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from tenants.models import Tenant
    from tests.vaults.vault_double import FarVault

pytestmark = pytest.mark.django_db

VALUE = "sk-openai-0123456789"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str = "") -> str:
    """Run the command with a stdin that is no terminal and return what it prints."""
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    printed = io.StringIO()
    call_command("secrets", *arguments, stdout=printed)
    assert VALUE not in printed.getvalue()
    return printed.getvalue()


def value_of(tenant: Tenant) -> str:
    """Return the value that counts."""
    return reveal(tenant.pk.hex, "openai-key").value.reveal().decode()


def test_a_secret_is_set_listed_disabled_enabled_and_deleted(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, "set", "acme", "OpenAI-Key", stdin=f"{VALUE}\n")
    assert said == "the secret openai-key has version 1, in the vault embedded\n"
    assert value_of(acme) == VALUE

    assert "has version 2" in run(monkeypatch, "set", "acme", "openai-key", stdin="sk-second")
    assert value_of(acme) == "sk-second"
    (_, row) = run(monkeypatch, "list", "acme").splitlines()
    assert row.split()[:5] == ["openai-key", "active", "2", "embedded", "-"]

    assert run(monkeypatch, "disable", "acme", "openai-key") == "the secret openai-key is disabled\n"
    assert run(monkeypatch, "enable", "acme", "openai-key") == "the secret openai-key is active\n"
    assert run(monkeypatch, "delete", "acme", "openai-key") == "deleted the secret openai-key\n"
    with pytest.raises(CommandError, match="acme has no secret openai-key"):
        run(monkeypatch, "delete", "acme", "openai-key")


def test_an_entry_of_a_vault_is_linked(acme: Tenant, far: FarVault, monkeypatch: pytest.MonkeyPatch) -> None:
    far.entries["prod-openai"] = SecretValue(b"sk-made-by-hand")
    run(monkeypatch, "link", "acme", "openai-key", "--vault", "far", "--entry", "prod-openai")
    assert value_of(acme) == "sk-made-by-hand"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("set", "acme", "a b"), VALUE, "A secret's name has"),
        (("set", "acme", "a"), "", "The value must have 1 to"),
        (("set", "acme", "a"), "one\ntwo\n", "The value must be one line"),
        (("set", "acme", "a", "--vault", "nowhere"), VALUE, "There is no such vault"),
        (("set", "nobody", "a"), VALUE, "There is no tenant nobody"),
        (("disable", "acme", "a"), "", "acme has no secret a"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_kept(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], stdin: str, said: str
) -> None:
    with pytest.raises(CommandError, match=said):
        run(monkeypatch, *arguments, stdin=stdin)
    assert not Secret.everywhere().exists()
