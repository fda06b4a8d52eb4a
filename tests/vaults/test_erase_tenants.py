"""A tenant that is erased leaves no secret: unreadable from the first moment, and gone from every vault at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandboxes import offboarding
from sandboxes.node_client import local_node
from tenants.models import Tenant
from tenants.secretmodels import SealedValue, Secret, TenantKey
from tenants.secrets import actions, erasing, selectors
from tenants.vaults import choosing, reveal
from tenants.vaults.contract import SecretDisabled, SecretMissing, VaultUnavailable
from tenants.vaults.revealing import ref_of
from tests import factories
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from audit.models import Operation
    from tests.people import Person
    from tests.sandboxes.node_double import NodeDouble
    from tests.vaults.vault_double import FarVault

pytestmark = pytest.mark.django_db(transaction=True)


def begin(tenant: Tenant) -> Operation:
    """Begin to erase a tenant."""
    return offboarding.offboard_tenant(actor=OPERATOR, tenant=tenant, confirm=tenant.slug)


def work(operation: Operation) -> bool:
    """Work on it as the worker does; say whether it is finished."""
    done = offboarding.work(local_node(), operation, budget_s=60)
    operation.refresh_from_db()
    return done


def test_from_the_first_moment_on_nobody_gets_a_secret(node: NodeDouble, acme: Tenant) -> None:
    factories.secret(acme, "openai-key", "sk-acme")
    reveal(acme.pk.hex, "openai-key")

    begin(acme)

    with pytest.raises(SecretDisabled):
        reveal(acme.pk.hex, "openai-key")


def test_without_the_tenants_key_a_copy_of_its_rows_is_worth_nothing(acme: Tenant, evil_corp: Tenant) -> None:
    secret = factories.secret(acme, "openai-key", "sk-acme")
    factories.secret(evil_corp, "openai-key", "sk-theirs")
    backup = SealedValue.everywhere().get(tenant=acme)

    assert erasing.forget_key(acme.pk) == 1
    assert erasing.forget_key(acme.pk) == 0

    assert bytes(SealedValue.everywhere().get(pk=backup.pk).sealed) == bytes(backup.sealed)
    with pytest.raises(SecretMissing, match="erased"):
        choosing.embedded().get(ref_of(secret))
    assert reveal(evil_corp.pk.hex, "openai-key").value.reveal() == b"sk-theirs"


def test_nothing_of_it_is_left_in_any_vault(node: NodeDouble, acme: Tenant, mallory: Person, far: FarVault) -> None:
    factories.secret(acme, "here", "x")
    actions.create_secret(actor=OPERATOR, tenant=acme, name="there", value="y", vault="far")
    factories.secret(mallory.tenant, "own", "z")

    operation = begin(acme)
    # What only the web's side can reach is gone before the worker begins.
    assert not SealedValue.everywhere().filter(tenant=acme, name="there").exists()
    assert work(operation)

    assert (
        operation.result["erased"] | {"secrets": 2, "secret_values": 1, "vault_keys": 1} == operation.result["erased"]
    )
    for model in (Secret, SealedValue, TenantKey):
        assert [row.tenant_id for row in model.everywhere()] == [mallory.tenant.pk]
    assert reveal(mallory.tenant.pk.hex, "own").value.reveal() == b"z"


def test_it_waits_for_a_vault_that_is_away_and_says_what_to_do(node: NodeDouble, acme: Tenant, far: FarVault) -> None:
    actions.create_secret(actor=OPERATOR, tenant=acme, name="there", value="y", vault="far")
    far.error = VaultUnavailable()

    operation = begin(acme)
    assert not work(operation)
    assert operation.error == "1 secrets are still in a vault that was away: run `manage.py vault sweep`."
    assert Tenant.objects.filter(pk=acme.pk).exists()
    assert not TenantKey.everywhere().exists()

    far.error = None
    assert actions.erase_deleted(selectors.deleted_and_kept()) == 0
    assert work(operation)
    assert not SealedValue.everywhere().exists()


def test_beginning_once_more_asks_the_vault_once_more(node: NodeDouble, acme: Tenant, far: FarVault) -> None:
    actions.create_secret(actor=OPERATOR, tenant=acme, name="there", value="y", vault="far")
    far.error = VaultUnavailable()
    operation = begin(acme)
    far.error = None

    assert begin(Tenant.objects.get(pk=acme.pk)).pk == operation.pk
    assert work(operation)
