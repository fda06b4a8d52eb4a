"""Members come and go; nobody rises above who lets them, and a tenant keeps an owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from corekit.errors import Conflict, Forbidden, InvalidInput, NotFound
from tenants import actions
from tenants.models import Membership
from tests import factories, people

if TYPE_CHECKING:
    from tests.people import Person


def test_alice_adds_a_developer(alice: Person) -> None:
    carol = factories.user("Carol")
    membership = actions.add_member(actor=alice.actor, tenant=alice.tenant, user=carol, role="developer")
    assert Membership.visible_to(alice.actor).get(user=carol) == membership
    assert Event.objects.filter(code="member.added", object_id=str(carol.pk)).count() == 1


def test_bob_adds_nobody(bob: Person) -> None:
    with pytest.raises(Forbidden):
        actions.add_member(actor=bob.actor, tenant=bob.tenant, user=factories.user("Carol"), role="viewer")


def test_an_admin_makes_no_owner(alice: Person) -> None:
    adam = people.join(alice.tenant, "Adam", "admin")
    with pytest.raises(Forbidden, match="owner"):
        actions.add_member(actor=adam.actor, tenant=alice.tenant, user=factories.user("Carol"), role="owner")
    with pytest.raises(Forbidden, match="owner"):
        actions.change_role(actor=adam.actor, membership=alice.membership, role="viewer")
    with pytest.raises(Forbidden, match="owner"):
        actions.remove_member(actor=adam.actor, membership=alice.membership)


def test_nobody_joins_twice(alice: Person, bob: Person) -> None:
    with pytest.raises(Conflict):
        actions.add_member(actor=alice.actor, tenant=alice.tenant, user=bob.user, role="viewer")
    assert Membership.visible_to(alice.actor).get(user=bob.user).role == "developer"


def test_unknown_roles_are_refused(alice: Person) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.add_member(actor=alice.actor, tenant=alice.tenant, user=factories.user("Carol"), role="god")
    assert refused.value.field == "role"


def test_a_role_changes(alice: Person, bob: Person) -> None:
    actions.change_role(actor=alice.actor, membership=bob.membership, role="viewer")
    assert Membership.visible_to(alice.actor).get(user=bob.user).role == "viewer"
    event = Event.objects.get(code="member.role_changed")
    assert event.details == {"before": "developer", "after": "viewer"}


def test_the_last_owner_stays(alice: Person) -> None:
    with pytest.raises(Conflict, match="owner"):
        actions.change_role(actor=alice.actor, membership=alice.membership, role="viewer")
    with pytest.raises(Conflict, match="owner"):
        actions.remove_member(actor=alice.actor, membership=alice.membership)
    assert Membership.visible_to(alice.actor).get(user=alice.user).role == "owner"


def test_an_owner_may_go_when_another_stays(alice: Person) -> None:
    zoe = people.join(alice.tenant, "Zoe", "owner")
    actions.remove_member(actor=zoe.actor, membership=alice.membership)
    assert not Membership.visible_to(zoe.actor).filter(user=alice.user).exists()
    with pytest.raises(NotFound):
        actions.remove_member(actor=zoe.actor, membership=alice.membership)


def test_mallory_sees_and_moves_nobody_of_acme(bob: Person, mallory: Person) -> None:
    assert {row.user_id for row in Membership.visible_to(mallory.actor)} == {mallory.user.pk}
    with pytest.raises(NotFound):
        actions.remove_member(actor=mallory.actor, membership=bob.membership)
