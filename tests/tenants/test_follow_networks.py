"""What runs hears of every change of policies, also when the one who made it dies before it could tell."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import transaction

from corekit import clock
from corekit.errors import Conflict
from tenants import hooks
from tenants.models import NetworkChange
from tenants.networks import actions, following
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.people import Person

Heard = list[tuple[str | None, str | None]]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Return what the upper layers hear of."""
    found: Heard = []
    monkeypatch.setattr(hooks, "on_network_changed", [lambda tenant, policy: found.append((tenant, policy))])
    return found


def left() -> Heard:
    """Return the changes that nobody has told of yet."""
    return [
        (change.tenant_id.hex if change.tenant_id else None, change.policy or None)
        for change in NetworkChange.objects.order_by("pk")
    ]


def test_a_change_is_told_after_its_commit_and_then_forgotten(
    transactional_db: None, alice: Person, heard: Heard
) -> None:
    policy = actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="mine", body={}).policy
    assert heard == []

    with transaction.atomic():
        actions.replace_policy(actor=alice.actor, policy=policy, version=1, body={"dns": False})
        assert heard == []
        assert left() == [(alice.tenant.pk.hex, "mine")]

    assert heard == [(alice.tenant.pk.hex, "mine")]
    actions.set_bundle(actor=OPERATOR, name="python", entries=[])
    assert heard[1:] == [(None, None)]
    assert left() == []


def test_a_change_that_does_not_happen_is_not_told(transactional_db: None, alice: Person, heard: Heard) -> None:
    policy = actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="mine", body={}).policy

    with pytest.raises(Conflict):
        actions.replace_policy(actor=alice.actor, policy=policy, version=2, body={})

    assert heard == left() == []


def test_what_nobody_told_of_is_told_later(
    transactional_db: None, alice: Person, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(tenant: str | None, policy: str | None) -> None:
        raise OSError("the process dies")

    with monkeypatch.context() as dying:
        dying.setattr(hooks, "on_network_changed", [fails])
        actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, public_internet=True)
    assert left() == [(alice.tenant.pk.hex, None)]
    # Whoever made it may be just about to tell.
    assert following.follow_left() == 0

    NetworkChange.objects.update(created_at=clock.now() - timedelta(seconds=6))
    assert following.follow_left() == 1

    assert heard == [(alice.tenant.pk.hex, None)]
    assert left() == []
    assert following.follow_left() == 0
