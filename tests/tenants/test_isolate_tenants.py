"""One door: a tenant's rows are absent for everybody else, and a forgotten filter fails instead of leaking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.apps import apps
from django_scopes import ScopeError, scope

from corekit.actor import Actor
from tenants import quota
from tenants.models import ApiKey, Quota, Reservation, TenantOwned
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.people import Person

OWNED = [model for model in apps.get_models() if issubclass(model, TenantOwned)]


def test_everybody_sees_their_own(alice: Person, mallory: Person) -> None:
    alice.key()
    mallory.key()
    assert {key.tenant_id for key in ApiKey.visible_to(alice.actor)} == {alice.tenant.id}
    assert {key.tenant_id for key in ApiKey.visible_to(mallory.actor)} == {mallory.tenant.id}
    assert Quota.visible_to(mallory.actor).get().tenant_id == mallory.tenant.id


def test_operators_see_all(alice: Person, mallory: Person) -> None:
    alice.key()
    mallory.key()
    assert ApiKey.visible_to(OPERATOR).count() == 2


def test_somebody_without_tenant_and_scopes_sees_nothing(alice: Person) -> None:
    alice.key()
    nobody = Actor(kind="user", id="9", name="Nobody", tenant_id=None, scopes=frozenset({"sandboxes:read"}))
    assert not ApiKey.visible_to(nobody).exists()


def test_another_tenants_key_is_as_absent_as_no_key(alice: Person, mallory: Person) -> None:
    alice.key()
    key = ApiKey.visible_to(alice.actor).get()
    with pytest.raises(ApiKey.DoesNotExist):
        ApiKey.visible_to(mallory.actor).get(pk=key.pk)


@pytest.mark.parametrize("model", OWNED, ids=lambda model: model.__name__)
def test_a_query_outside_a_scope_fails(db: None, model: type[TenantOwned]) -> None:
    with pytest.raises(ScopeError):
        model.objects.count()
    with pytest.raises(ScopeError):
        model.objects.all().first()


def test_a_scope_filters(alice: Person, mallory: Person) -> None:
    quota.reserve(tenant_id=alice.tenant.id, sandbox_id="ia", amounts=quota.Amounts())
    quota.reserve(tenant_id=mallory.tenant.id, sandbox_id="im", amounts=quota.Amounts())
    with scope(tenant=alice.tenant):
        assert [row.sandbox_id for row in Reservation.objects.all()] == ["ia"]
