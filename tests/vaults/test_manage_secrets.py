"""Secrets: written, given new values, disabled and deleted by who may, with an event each and never a value in one."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from audit.models import Event
from corekit.errors import Conflict, Forbidden, InvalidInput, NotFound
from tenants.models import Tenant
from tenants.secretmodels import SealedValue, Secret, SecretVersion
from tenants.secrets import actions, names, selectors
from tenants.vaults import reveal
from tenants.vaults.contract import SecretMissing, VaultDenied, VaultUnavailable
from tenants.vaults.secretvalue import SecretValue
from tests import factories
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.people import Person
    from tests.vaults.vault_double import FarVault

pytestmark = pytest.mark.django_db

VALUE = "sk-openai-0123456789"


def create(person: Person, name: str = "openai-key", value: str = VALUE, **more: Any) -> Secret:
    """Create a secret of the person's tenant."""
    return actions.create_secret(actor=person.actor, tenant=person.tenant, name=name, value=value, **more)


def value_of(tenant: Tenant, name: str = "openai-key") -> str:
    """Return the value that counts."""
    return reveal(tenant.pk.hex, name).value.reveal().decode()


def events() -> list[tuple[str, str, dict[str, Any]]]:
    """Return code, object and details of all events about secrets."""
    rows = Event.objects.filter(code__startswith="secret.").order_by("received_at", "id")
    return [(event.code, event.object_name, event.details) for event in rows]


def nothing_happened() -> bool:
    """Say that there is no secret, no value and no event about one."""
    kept = (Secret.everywhere().count(), SealedValue.everywhere().filter(deleted_at=None).count(), events())
    return kept == (0, 0, [])


def test_a_secret_is_created_with_its_first_value(alice: Person) -> None:
    secret = create(alice, " OpenAI-Key ", metadata={"team": "search"})

    assert (secret.name, secret.vault, secret.state, secret.current_version) == ("openai-key", "embedded", "active", 1)
    assert secret.metadata == {"team": "search"}
    assert secret.created_by == secret.updated_by == alice.actor.id
    assert secret.pk.startswith("sec_")
    assert value_of(alice.tenant) == VALUE
    event = Event.objects.get(code="secret.created")
    assert (event.actor_name, event.object_id, event.tenant_id) == ("Alice", secret.pk, alice.tenant.pk)
    assert event.details == {"name": "openai-key", "vault": "embedded", "version": 1}


def test_a_new_value_is_a_new_version_and_keeps_or_replaces_what_is_said_of_it(alice: Person) -> None:
    secret = create(alice, metadata={"team": "search"})

    second = actions.add_version(actor=alice.actor, secret=secret, value="sk-second")
    assert (second.current_version, second.metadata, value_of(alice.tenant)) == (2, {"team": "search"}, "sk-second")

    third = actions.add_version(actor=alice.actor, secret=secret, value="sk-third", metadata={})
    assert (third.current_version, third.metadata, value_of(alice.tenant)) == (3, {}, "sk-third")
    assert [version.number for version in selectors.versions_of(third)] == [3, 2, 1]
    assert events()[1:] == [
        ("secret.updated", "openai-key", {"name": "openai-key", "version": 2}),
        ("secret.updated", "openai-key", {"name": "openai-key", "version": 3}),
    ]


def test_a_secret_is_disabled_and_enabled_again_once_each(alice: Person) -> None:
    secret = create(alice)

    assert actions.disable_secret(actor=alice.actor, secret=secret).state == "disabled"
    with pytest.raises(Conflict, match="disabled already"):
        actions.disable_secret(actor=alice.actor, secret=secret)
    assert actions.enable_secret(actor=alice.actor, secret=secret).state == "active"
    with pytest.raises(Conflict, match="active already"):
        actions.enable_secret(actor=alice.actor, secret=secret)

    assert [code for code, _, _ in events()] == ["secret.created", "secret.disabled", "secret.enabled"]


def test_a_deleted_secret_leaves_no_value_and_its_name_is_free(alice: Person) -> None:
    secret = create(alice, metadata={"team": "search"})
    actions.add_version(actor=alice.actor, secret=secret, value="sk-second")

    actions.delete_secret(actor=alice.actor, secret=secret)

    row = Secret.everywhere().get(pk=secret.pk)
    assert (row.state, row.metadata) == ("deleted", {})
    assert row.deleted_at is not None
    assert row.purged_at is not None
    assert not SealedValue.everywhere().exists()
    assert not selectors.secrets_for(alice.actor).exists()
    assert events()[-1] == ("secret.deleted", "openai-key", {"name": "openai-key", "vault": "embedded"})
    again = create(alice, value="sk-other")
    assert again.pk != secret.pk
    assert value_of(alice.tenant) == "sk-other"


def test_what_is_deleted_can_not_be_changed_any_more(alice: Person) -> None:
    secret = create(alice)
    actions.delete_secret(actor=alice.actor, secret=secret)
    before = events()

    for act in (actions.disable_secret, actions.enable_secret, actions.delete_secret):
        with pytest.raises(NotFound):
            act(actor=alice.actor, secret=secret)
    with pytest.raises(NotFound):
        actions.add_version(actor=alice.actor, secret=secret, value="sk-second")
    assert events() == before
    with pytest.raises(SecretMissing):
        value_of(alice.tenant)


def test_a_name_that_is_taken_is_refused_and_the_secret_stays_what_it_is(alice: Person) -> None:
    create(alice)
    before = events()
    with pytest.raises(Conflict, match="There is a secret openai-key already") as refused:
        create(alice, "OPENAI-KEY", "sk-other")
    assert refused.value.field == "name"
    assert value_of(alice.tenant) == VALUE
    assert events() == before
    assert SealedValue.everywhere().count() == 1


def test_two_tenants_may_use_the_same_name(alice: Person, mallory: Person) -> None:
    create(alice)
    create(mallory, value="theirs")
    assert (value_of(alice.tenant), value_of(mallory.tenant)) == (VALUE, "theirs")


@pytest.mark.parametrize(
    "name",
    ["", "   ", "a b", "a/b", "a.b", "ä", "${x}", "sec_0123", "SEC_x", "a" * 129, "a\n", "a\nb", "a\x00", None, 5],
)
def test_a_name_of_another_form_is_refused(alice: Person, name: Any) -> None:
    if name == "a\n":
        # Blanks around a name are not part of it.
        assert create(alice, name).name == "a"
        return
    with pytest.raises(InvalidInput, match="name") as refused:
        create(alice, name)
    assert refused.value.field == "name"
    assert nothing_happened()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a\r\nHost: evil.example",
        "a\nb",
        "a\rb",
        "a\x00b",
        "a\x7fb",
        "\ud800",
        "x" * 65_537,
        "ä" * 32_769,
        None,
        5,
        b"x",
    ],
)
def test_a_value_that_no_header_can_carry_is_refused_and_not_repeated(alice: Person, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        create(alice, value=value)
    assert refused.value.field == "value"
    assert "evil" not in json.dumps(refused.value.as_body())
    assert nothing_happened()

    secret = create(alice)
    with pytest.raises(InvalidInput):
        actions.add_version(actor=alice.actor, secret=secret, value=value)
    assert value_of(alice.tenant) == VALUE


@pytest.mark.parametrize("value", ["x", " kept with its blanks ", "tab\tinside", "x" * 65_536, "snow ☃"])
def test_every_other_line_is_kept_as_it_is(alice: Person, value: str) -> None:
    create(alice, value=value)
    assert value_of(alice.tenant) == value


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": 5},
        {"a": None},
        {"": "x"},
        {"a" * 129: "x"},
        {"a": "x" * 1025},
        {"a": "x\x00"},
        {str(number): "x" for number in range(33)},
        {str(number): "x" * 1000 for number in range(9)},
    ],
)
def test_what_is_said_of_a_secret_is_a_few_texts(alice: Person, metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        create(alice, metadata=metadata)
    assert refused.value.field == "metadata"
    assert nothing_happened()


def test_a_tenant_has_so_many_secrets_at_most(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MAX_SECRETS", 2)
    create(alice, "a")
    create(alice, "b")
    with pytest.raises(actions.SecretLimitReachedError) as refused:
        create(alice, "c")
    assert (refused.value.status, refused.value.code) == (409, "secret_limit_reached")

    actions.delete_secret(actor=alice.actor, secret=selectors.secret_for(alice.actor, "a"))
    create(alice, "c")


def test_a_developer_may_see_secrets_and_not_write_them(alice: Person, bob: Person) -> None:
    secret = create(alice)
    assert selectors.secret_for(bob.actor, "openai-key") == secret
    before = events()

    with pytest.raises(Forbidden):
        create(bob, "other")
    with pytest.raises(Forbidden):
        actions.add_version(actor=bob.actor, secret=secret, value="x")
    for act in (actions.disable_secret, actions.enable_secret, actions.delete_secret):
        with pytest.raises(Forbidden):
            act(actor=bob.actor, secret=secret)
    assert events() == before


def test_another_tenants_secret_is_as_absent_as_none(alice: Person, mallory: Person) -> None:
    secret = create(alice)
    before = events()
    for wanted in (secret.pk, "openai-key", factories.secret(mallory.tenant, "own", "x").pk + "0"):
        with pytest.raises(NotFound):
            selectors.secret_for(mallory.actor, wanted)
    with pytest.raises(NotFound):
        actions.create_secret(actor=mallory.actor, tenant=alice.tenant, name="x", value="x")
    with pytest.raises(NotFound):
        actions.add_version(actor=mallory.actor, secret=secret, value="x")
    for act in (actions.disable_secret, actions.enable_secret, actions.delete_secret):
        with pytest.raises(NotFound):
            act(actor=mallory.actor, secret=secret)
    assert events()[: len(before)] == before
    assert value_of(alice.tenant) == VALUE


def test_a_tenant_that_is_being_erased_gets_no_secret(alice: Person) -> None:
    Tenant.objects.filter(pk=alice.tenant.pk).update(state="offboarding")
    with pytest.raises(NotFound):
        create(alice)
    assert nothing_happened()


def test_no_event_and_no_log_line_holds_a_value(alice: Person, log_lines: list[Any]) -> None:
    secret = create(alice)
    actions.add_version(actor=alice.actor, secret=secret, value="sk-second-0123456789")
    actions.disable_secret(actor=alice.actor, secret=secret)
    actions.delete_secret(actor=alice.actor, secret=secret)

    written = json.dumps([*Event.objects.values()], default=str) + json.dumps(log_lines, default=str)
    for value in (VALUE, "sk-second"):
        assert value not in written


# Vaults that are away.


def test_a_vault_that_is_away_takes_no_secret(alice: Person, far: FarVault) -> None:
    far.error = VaultUnavailable("The vault far does not answer.")
    with pytest.raises(VaultUnavailable):
        create(alice, vault="far")
    assert nothing_happened()


def test_a_vault_that_is_away_takes_no_new_value_and_the_old_one_stays(alice: Person, far: FarVault) -> None:
    secret = create(alice, vault="far")
    far.error = VaultUnavailable()
    with pytest.raises(VaultUnavailable):
        actions.add_version(actor=alice.actor, secret=secret, value="sk-second")
    far.error = None
    assert value_of(alice.tenant) == VALUE
    assert SecretVersion.objects.count() == 1


def test_a_secret_is_deleted_at_once_and_its_vault_erases_it_when_it_is_back(alice: Person, far: FarVault) -> None:
    secret = create(alice, vault="far")
    far.error = VaultUnavailable()

    actions.delete_secret(actor=alice.actor, secret=secret)

    with pytest.raises(SecretMissing):
        value_of(alice.tenant)
    assert Secret.everywhere().get(pk=secret.pk).purged_at is None
    assert actions.erase_deleted(selectors.deleted_and_kept()) == 1

    # A secret of the same name meanwhile is another one, and is not erased with it.
    far.error = None
    create(alice, value="sk-other", vault="far")
    assert actions.erase_deleted(selectors.deleted_and_kept()) == 0
    assert not selectors.deleted_and_kept().exists()
    assert value_of(alice.tenant) == "sk-other"
    assert SealedValue.everywhere().count() == 1


def test_a_vault_that_forbids_purging_keeps_what_is_deleted_and_gives_it_to_nobody(
    alice: Person, far: FarVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(ref: object) -> None:
        raise VaultDenied("Purging is forbidden.")

    monkeypatch.setattr(far, "purge", forbidden)
    secret = create(alice, vault="far")
    actions.delete_secret(actor=alice.actor, secret=secret)
    assert Secret.everywhere().get(pk=secret.pk).purged_at is not None


@pytest.mark.parametrize("vault", ["nowhere", "EMBEDDED", "x" * 100])
def test_a_vault_that_is_not_there_is_named(alice: Person, vault: str) -> None:
    with pytest.raises(InvalidInput, match="There is no such vault") as refused:
        create(alice, vault=vault)
    assert refused.value.field == "vault"
    assert nothing_happened()


# Entries that an operator made in a vault.


def test_an_operator_links_an_entry_of_a_vault(alice: Person, far: FarVault) -> None:
    far.entries["prod-openai"] = SecretValue(b"sk-made-by-hand")
    actions.link_secret(actor=OPERATOR, tenant=alice.tenant, name="openai-key", vault="far", entry="prod-openai")

    assert value_of(alice.tenant) == "sk-made-by-hand"
    assert events() == [
        (
            "secret.created",
            "openai-key",
            {"name": "openai-key", "vault": "far", "version": 1, "entry": "prod-openai"},
        )
    ]


def test_a_linked_entry_is_neither_changed_nor_erased_by_its_secret(alice: Person, far: FarVault) -> None:
    far.entries["prod-openai"] = SecretValue(b"sk-made-by-hand")
    secret = actions.link_secret(
        actor=OPERATOR, tenant=alice.tenant, name="openai-key", vault="far", entry="prod-openai"
    )
    with pytest.raises(Conflict, match="changed in its vault"):
        actions.add_version(actor=alice.actor, secret=secret, value="x")
    far.error = VaultUnavailable()
    actions.delete_secret(actor=alice.actor, secret=secret)
    assert Secret.everywhere().get(pk=secret.pk).purged_at is not None


def test_nobody_but_an_operator_links_entries(alice: Person, far: FarVault) -> None:
    far.entries["prod-openai"] = SecretValue(b"sk-made-by-hand")
    with pytest.raises(Forbidden):
        actions.link_secret(actor=alice.actor, tenant=alice.tenant, name="x", vault="far", entry="prod-openai")
    assert nothing_happened()


def test_an_entry_that_the_vault_does_not_have_is_not_linked(alice: Person, far: FarVault) -> None:
    with pytest.raises(SecretMissing):
        actions.link_secret(actor=OPERATOR, tenant=alice.tenant, name="x", vault="far", entry="nothing")
    with pytest.raises(InvalidInput):
        actions.link_secret(actor=OPERATOR, tenant=alice.tenant, name="x", vault="embedded", entry="nothing")
    assert nothing_happened()


# At the same moment.


def at_once(count: int, act: Any) -> list[Any]:
    """Run something in many threads at the same moment and return what came of each."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        try:
            barrier.wait(30)
            return act(number)
        except Conflict as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(run, range(count))]


@pytest.mark.django_db(transaction=True)
def test_of_many_who_create_the_same_secret_one_does_and_its_value_counts(alice: Person) -> None:
    done = at_once(8, lambda number: (create(alice, value=f"sk-{number}"), number))

    made = [one for one in done if isinstance(one, tuple)]
    assert len(made) == 1
    assert value_of(alice.tenant) == f"sk-{made[0][1]}"
    assert SealedValue.everywhere().count() == 1
    assert len(events()) == 1


@pytest.mark.django_db(transaction=True)
def test_new_values_at_the_same_moment_are_all_versions_and_the_last_one_counts(alice: Person) -> None:
    secret = create(alice)
    at_once(8, lambda number: actions.add_version(actor=alice.actor, secret=secret, value=f"sk-{number}"))

    assert [version.number for version in selectors.versions_of(secret)] == list(range(9, 0, -1))
    values = {reveal(alice.tenant.pk.hex, "openai-key", version=number).value.reveal() for number in range(2, 10)}
    assert values == {f"sk-{number}".encode() for number in range(8)}
    assert reveal(alice.tenant.pk.hex, "openai-key").version == 9


def test_names_and_ids_never_mean_each_other(alice: Person) -> None:
    assert names.ID_PREFIX == "sec_"
    secret = create(alice)
    assert selectors.secret_for(alice.actor, f" {secret.pk.upper()} ") == secret
