"""Keys are made and revoked by those who may, and give away no more than their maker holds."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import Forbidden, InvalidInput, NotFound
from tenants import actions, hooks
from tenants.models import ApiKey
from tenants.policy import DEFAULT_KEY_SCOPES

if TYPE_CHECKING:
    from tests.people import Person


def test_alice_makes_a_key(alice: Person) -> None:
    key, text = actions.create_api_key(actor=alice.actor, tenant=alice.tenant, name=" ci ")
    assert key.name == "ci"
    assert set(key.scopes) == DEFAULT_KEY_SCOPES
    assert key.created_by == alice.actor.id
    event = Event.objects.get(code="apikey.created")
    assert event.object_id == key.id
    assert event.tenant_id == alice.tenant.id
    assert event.details == {"name": "ci", "scopes": sorted(DEFAULT_KEY_SCOPES), "expires_at": None}
    assert text not in str(vars(event))


def test_the_system_makes_the_first_key(alice: Person) -> None:
    key, _ = actions.create_api_key(actor=SYSTEM, tenant=alice.tenant, name="first", scopes=["audit:read"])
    assert key.scopes == ["audit:read"]


def test_bob_may_not_make_keys(bob: Person) -> None:
    with pytest.raises(Forbidden, match="keys:write"):
        actions.create_api_key(actor=bob.actor, tenant=bob.tenant, name="ci")
    assert not ApiKey.everywhere().exists()


def test_mallory_finds_no_such_tenant(alice: Person, mallory: Person) -> None:
    with pytest.raises(NotFound):
        actions.create_api_key(actor=mallory.actor, tenant=alice.tenant, name="ci")
    assert not ApiKey.everywhere().exists()


def test_nobody_gives_away_what_they_do_not_hold(alice: Person) -> None:
    limited = alice.actor.__class__(
        kind="api_key",
        id="0" * 16,
        name="limited",
        tenant_id=alice.tenant.id.hex,
        scopes=frozenset({"keys:write", "sandboxes:read"}),
    )
    with pytest.raises(Forbidden, match="sandboxes:write"):
        actions.create_api_key(actor=limited, tenant=alice.tenant, name="x", scopes=["sandboxes:write"])
    key, _ = actions.create_api_key(actor=limited, tenant=alice.tenant, name="x")
    assert key.scopes == ["sandboxes:read"]


@pytest.mark.parametrize("scopes", [["*"], ["platform:write"], ["nonsense"], []])
def test_scopes_that_keys_never_have_are_refused(alice: Person, scopes: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.create_api_key(actor=SYSTEM, tenant=alice.tenant, name="x", scopes=scopes)
    assert refused.value.field == "scopes"


@pytest.mark.parametrize("name", ["", "  ", "n" * 101, "a\nb", "a\x00b", None, 7])
def test_bad_names_are_refused(alice: Person, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.create_api_key(actor=alice.actor, tenant=alice.tenant, name=name)
    assert refused.value.field == "name"
    assert not ApiKey.everywhere().exists()


def test_an_expiry_in_the_past_is_refused(alice: Person) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.create_api_key(
            actor=alice.actor, tenant=alice.tenant, name="x", expires_at=clock.now() - timedelta(seconds=1)
        )
    assert refused.value.field == "expires_at"


@pytest.mark.django_db(transaction=True)
def test_revoking_tells_the_hooks_after_the_commit(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, bool]] = []

    def hook(key_id: str) -> None:
        told.append((key_id, ApiKey.everywhere().get(pk=key_id).revoked_at is not None))

    def broken(key_id: str) -> None:
        raise RuntimeError("the node is away")

    monkeypatch.setattr(hooks, "on_key_revoked", [broken, hook])
    key, _ = actions.create_api_key(actor=alice.actor, tenant=alice.tenant, name="x")
    actions.revoke_api_key(actor=alice.actor, key=key)
    assert told == [(key.id, True)]
    assert Event.objects.filter(code="apikey.revoked", object_id=key.id).count() == 1


@pytest.mark.django_db(transaction=True)
def test_revoking_again_changes_nothing_but_tells_the_nodes(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(hooks, "on_key_revoked", [told.append])
    key, _ = actions.create_api_key(actor=alice.actor, tenant=alice.tenant, name="x")
    actions.revoke_api_key(actor=alice.actor, key=key)
    first = ApiKey.everywhere().get(pk=key.pk).revoked_at
    actions.revoke_api_key(actor=alice.actor, key=key)
    assert ApiKey.everywhere().get(pk=key.pk).revoked_at == first
    assert told == [key.id, key.id]
    assert Event.objects.filter(code="apikey.revoked").count() == 1


def test_mallory_revokes_nothing_of_acme(alice: Person, mallory: Person) -> None:
    key, _ = actions.create_api_key(actor=alice.actor, tenant=alice.tenant, name="x")
    with pytest.raises(NotFound):
        actions.revoke_api_key(actor=mallory.actor, key=key)
    assert ApiKey.everywhere().get(pk=key.pk).revoked_at is None
