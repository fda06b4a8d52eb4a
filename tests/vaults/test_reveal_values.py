"""The one door to a value: what the secret is now, whatever is remembered."""

from __future__ import annotations

import ast
import gc
from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from corekit.errors import NotFound
from corekit.redaction import HIDDEN, redact
from tenants import actions as tenant_actions
from tenants.secretmodels import SealedValue
from tenants.secrets import actions
from tenants.vaults import reveal, revealing
from tenants.vaults.cache import ValueCache
from tenants.vaults.contract import (
    SecretDisabled,
    SecretMissing,
    SecretUnreadable,
    VaultMisconfigured,
    VaultUnavailable,
)
from tenants.vaults.secretvalue import SecretValue
from tests import factories
from tests.factories import OPERATOR
from tests.live import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenants.models import Tenant
    from tests.people import Person
    from tests.vaults.vault_double import FarVault

pytestmark = pytest.mark.django_db

VALUE = "sk-openai-0123456789"


def text_of(tenant: Tenant, name: str = "openai-key", version: int | None = None) -> str:
    """Return the value of a secret as text."""
    return reveal(tenant.pk.hex, name, version=version).value.reveal().decode()


def test_a_value_comes_with_which_one_it_is(acme: Tenant) -> None:
    secret = factories.secret(acme, "openai-key", VALUE)

    revealed = reveal(acme.pk.hex, "OpenAI-Key ")

    assert revealed.value == SecretValue(VALUE.encode())
    assert (revealed.secret_id, revealed.name, revealed.version) == (secret.pk, "openai-key", 1)
    assert VALUE not in repr(revealed)


def test_a_new_value_counts_at_once_and_older_ones_by_their_version(acme: Tenant) -> None:
    secret = factories.secret(acme, "openai-key", VALUE)
    assert text_of(acme) == VALUE

    actions.add_version(actor=OPERATOR, secret=secret, value="sk-second")

    assert text_of(acme) == "sk-second"
    assert text_of(acme, version=1) == VALUE
    with pytest.raises(SecretMissing, match="has no version 3"):
        text_of(acme, version=3)


def test_a_disabled_secret_is_given_to_nobody_at_once_and_an_enabled_one_again(acme: Tenant) -> None:
    secret = factories.secret(acme, "openai-key", VALUE)
    text_of(acme)

    actions.disable_secret(actor=OPERATOR, secret=secret)
    with pytest.raises(SecretDisabled, match="openai-key"):
        text_of(acme)

    actions.enable_secret(actor=OPERATOR, secret=secret)
    assert text_of(acme) == VALUE


def test_a_deleted_secret_is_missing_at_once_and_one_of_its_name_is_another(acme: Tenant) -> None:
    secret = factories.secret(acme, "openai-key", VALUE)
    text_of(acme)

    actions.delete_secret(actor=OPERATOR, secret=secret)
    with pytest.raises(SecretMissing):
        text_of(acme)

    factories.secret(acme, "openai-key", "sk-other")
    assert text_of(acme) == "sk-other"


@pytest.mark.parametrize("act", [actions.delete_secret, actions.disable_secret])
def test_what_nobody_may_have_any_more_is_not_kept_in_memory(acme: Tenant, act: Callable[..., object]) -> None:
    value = f"sk-{acme.pk.hex}"
    secret = factories.secret(acme, "openai-key", value)
    text_of(acme)
    assert redact(value) == HIDDEN

    act(actor=OPERATOR, secret=secret)
    gc.collect()

    assert redact(value) == value


def test_another_tenants_secret_of_the_same_name_is_its_own(acme: Tenant, evil_corp: Tenant) -> None:
    factories.secret(acme, "openai-key", VALUE)
    with pytest.raises(SecretMissing):
        text_of(evil_corp)
    factories.secret(evil_corp, "openai-key", "theirs")
    assert (text_of(acme), text_of(evil_corp)) == (VALUE, "theirs")


def test_a_suspended_tenants_secrets_are_given_to_nobody(acme: Tenant) -> None:
    factories.secret(acme, "openai-key", VALUE)
    text_of(acme)
    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=acme, state="suspended")
    with pytest.raises(SecretDisabled):
        text_of(acme)


@pytest.mark.parametrize("name", ["unknown", "", "sec_x", "a" * 500, "ä", "a|b", "x\x00"])
def test_a_name_that_nothing_has_is_missing(acme: Tenant, name: str) -> None:
    with pytest.raises(SecretMissing, match="There is no secret "):
        text_of(acme, name)


def test_a_secret_in_a_vault_that_is_away_is_a_clear_503(acme: Tenant, far: FarVault) -> None:
    actions.create_secret(actor=OPERATOR, tenant=acme, name="openai-key", value=VALUE, vault="far")
    far.error = VaultUnavailable("The vault far does not answer.", retry_after=7)

    with pytest.raises(VaultUnavailable) as refused:
        text_of(acme)
    assert (refused.value.status, refused.value.code) == (503, "vault_unavailable")
    assert refused.value.message == "The vault far does not answer."
    assert refused.value.headers() == {"Retry-After": "7"}


def test_the_last_value_stands_in_for_a_vault_that_is_away_within_its_limit(
    acme: Tenant, far: FarVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(revealing, "_values", ValueCache(lambda: now[0]))
    secret = actions.create_secret(actor=OPERATOR, tenant=acme, name="openai-key", value=VALUE, vault="far")
    assert text_of(acme) == VALUE
    far.error = VaultUnavailable()

    now[0] = 3599
    assert text_of(acme) == VALUE
    now[0] = 3600
    with pytest.raises(VaultUnavailable):
        text_of(acme)

    # Within the limit too nobody gets what was disabled meanwhile.
    now[0] = 0
    actions.disable_secret(actor=OPERATOR, secret=secret)
    with pytest.raises(SecretDisabled):
        text_of(acme)


def test_the_vault_is_asked_once_for_many_calls(acme: Tenant, far: FarVault) -> None:
    actions.create_secret(actor=OPERATOR, tenant=acme, name="openai-key", value=VALUE, vault="far")
    for _ in range(20):
        text_of(acme)
    assert far.asked == 1


def test_a_tenants_secrets_may_lie_in_different_vaults(acme: Tenant, far: FarVault) -> None:
    factories.secret(acme, "here", "in the embedded one")
    actions.create_secret(actor=OPERATOR, tenant=acme, name="there", value="in the far one", vault="far")
    far.error = VaultUnavailable()

    assert text_of(acme, "here") == "in the embedded one"
    with pytest.raises(VaultUnavailable):
        text_of(acme, "there")


def test_an_entry_that_an_operator_made_is_read_where_it_is(acme: Tenant, far: FarVault) -> None:
    far.entries["prod-openai"] = SecretValue(b"sk-made-by-hand")
    secret = actions.link_secret(actor=OPERATOR, tenant=acme, name="openai-key", vault="far", entry="prod-openai")

    assert text_of(acme) == "sk-made-by-hand"
    assert (secret.vault, secret.entry) == ("far", "prod-openai")


def test_a_vault_that_is_not_configured_any_more_is_a_clear_503(
    acme: Tenant, far: FarVault, configure: Callable[..., None]
) -> None:
    actions.create_secret(actor=OPERATOR, tenant=acme, name="openai-key", value=VALUE, vault="far")
    configure("")
    with pytest.raises(VaultMisconfigured, match="The vault far is not configured"):
        text_of(acme)


def test_a_row_that_does_not_open_is_a_critical_event(acme: Tenant) -> None:
    secret = factories.secret(acme, "openai-key", VALUE)
    SealedValue.everywhere().update(sealed=bytes(60))

    with pytest.raises(SecretUnreadable):
        text_of(acme)

    event = Event.objects.get(code="secret.unreadable")
    assert (event.object_id, event.object_name, event.outcome) == (secret.pk, "openai-key", "error")
    assert event.details == {"name": "openai-key", "vault": "embedded", "version": 1}


def test_a_tenant_that_does_not_exist_has_no_secrets(db: None, mallory: Person) -> None:
    with pytest.raises(NotFound):
        reveal("0" * 32, "openai-key")


def test_nobody_but_the_brokers_side_opens_the_door() -> None:
    callers = set()
    for folder in ("audit", "platform", "sandboxes", "tenants"):
        for path in (ROOT / folder).rglob("*.py"):
            names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            called = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            if "reveal" in names | called:
                callers.add(path.relative_to(ROOT).parent.as_posix())
    assert callers == {"tenants/broker", "tenants/vaults"}
