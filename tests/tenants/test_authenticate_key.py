"""A key opens its tenant, and nothing but a good key does."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError, connection

from corekit import clock
from corekit.errors import Forbidden, Unauthorized
from tenants import actions
from tenants.authentication import authenticate, key_hash
from tenants.models import ApiKey, Tenant
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from corekit.actor import Actor
    from tests.people import Person


def come_in(key: str) -> Actor:
    return authenticate(key, origin="203.0.113.9", request_id="request-1")


def row(key: str) -> ApiKey:
    return ApiKey.everywhere().get(hash=key_hash(key))


def test_a_good_key_is_its_tenants_actor(alice: Person) -> None:
    key = alice.key(scopes=["sandboxes:read"])
    actor = come_in(key)
    assert actor.kind == "api_key"
    assert actor.id == row(key).id
    assert actor.tenant_id == alice.tenant.id.hex
    assert actor.scopes == {"sandboxes:read"}
    assert (actor.origin, actor.request_id) == ("203.0.113.9", "request-1")


def test_the_text_is_not_stored(alice: Person) -> None:
    key = alice.key()
    stored = row(key)
    assert key.startswith("e2b_")
    assert len(key) == 44
    assert stored.prefix == key[:8]
    assert stored.id not in key
    assert all(key not in str(value) for value in vars(stored).values())


@pytest.mark.parametrize(
    "text",
    ["", "e2b_", "e2b_" + "0" * 40, "e2b_" + "0" * 39, "E2B_" + "0" * 40, "sk_" + "0" * 40, "e2b_" + "é" * 40, "\x00"],
)
def test_an_unknown_key_is_refused(db: None, text: str) -> None:
    with pytest.raises(Unauthorized):
        come_in(text)


def test_a_key_under_another_seed_is_refused(alice: Person) -> None:
    key = alice.key()
    stored = row(key)
    ApiKey.everywhere().filter(pk=stored.pk).update(hash="0" * 64)
    with pytest.raises(Unauthorized):
        come_in(key)


def test_an_expired_key_is_refused(alice: Person) -> None:
    key = alice.key(expires_at=clock.now() + timedelta(hours=1))
    come_in(key)
    ApiKey.everywhere().filter(pk=row(key).pk).update(expires_at=clock.now())
    with pytest.raises(Unauthorized, match="expired"):
        come_in(key)


def test_a_revoked_key_is_refused(alice: Person) -> None:
    key = alice.key()
    actions.revoke_api_key(actor=alice.actor, key=row(key))
    with pytest.raises(Unauthorized, match="revoked"):
        come_in(key)


def test_a_suspended_tenants_keys_open_nothing(acme: Tenant, alice: Person) -> None:
    key = alice.key()
    actions.set_tenant_state(actor=OPERATOR, tenant=acme, state="suspended")
    with pytest.raises(Forbidden, match="suspended"):
        come_in(key)
    actions.set_tenant_state(actor=OPERATOR, tenant=acme, state="active")
    assert come_in(key).tenant_id == acme.id.hex


def test_last_use_is_noted_at_most_once_a_minute(
    alice: Person, django_assert_num_queries: Callable[[int], object]
) -> None:
    key = alice.key()
    come_in(key)
    first = row(key).last_used_at
    assert first is not None
    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        come_in(key)
    assert row(key).last_used_at == first
    ApiKey.everywhere().filter(pk=row(key).pk).update(last_used_at=first - timedelta(seconds=61))
    come_in(key)
    assert (row(key).last_used_at or first) > first


def test_a_busy_database_refuses_no_good_key(alice: Person) -> None:
    key = alice.key()

    def busy(execute: Callable[..., object], sql: str, *rest: object) -> object:
        if sql.startswith("UPDATE"):
            raise OperationalError("database is locked")
        return execute(sql, *rest)

    with connection.execute_wrapper(busy):
        assert come_in(key).tenant_id == alice.tenant.id.hex
    assert row(key).last_used_at is None
