"""A revoked API key opens no sandbox any more, within a second, whatever was under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from corekit import clock
from sandboxes import node_client, revocation, tasks
from sandboxes.models import Node
from tenants import actions as tenant_actions
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import caller

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


def revoke(whose: Caller) -> None:
    """Revoke somebody's key."""
    tenant_actions.revoke_api_key(actor=OPERATOR, key=whose.key)


def test_it_is_taken_from_every_sandbox_at_once(node: NodeDouble, base: Template, alice: Caller, bob: Caller) -> None:
    made = [alice.create()["sandboxID"] for _ in range(2)]
    bob.call("POST", f"/v2/sandboxes/{made[0]}/connect", {"timeout": 60})

    revoke(alice)

    assert node.guests[made[0]].grants == {bob.key.pk: None}
    assert node.guests[made[1]].grants == {}
    assert alice.call("GET", "/v2/sandboxes").status_code == 401


def test_with_the_node_away_it_is_repeated(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.die()
    revoke(alice)
    assert alice.key.pk in node.guests[sandbox_id].grants
    tasks.collect_events()

    node.listen()
    tasks.collect_events()
    assert node.guests[sandbox_id].grants == {}


def test_a_create_that_crossed_with_the_revocation_is_caught_up(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    def revoke_now(_: dict[str, Any]) -> None:
        node.before_start = None
        revoke(alice)

    node.before_start = revoke_now
    sandbox_id = alice.create()["sandboxID"]
    assert alice.key.pk in node.guests[sandbox_id].grants

    tasks.collect_events()
    assert node.guests[sandbox_id].grants == {}


def test_it_is_repeated_for_a_while_and_then_no_more(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.create()
    revoke(alice)
    client = node_client.local_node()
    assert revocation.repeat_recent(client) == 1
    assert revocation.repeat_recent(client) == 1

    later = clock.now() + 2 * revocation.OVERLAP
    monkeypatch.setattr(clock, "now", lambda: later)
    assert revocation.repeat_recent(client) == 1
    later += 2 * revocation.OVERLAP
    assert revocation.repeat_recent(client) == 0
    assert Node.objects.get().revocations_upto == later


def test_the_grant_ends_when_the_key_expires(node: NodeDouble, base: Template, alice: Caller) -> None:
    expires_at = clock.from_ms(clock.epoch_ms() + 60_000)
    key, secret = tenant_actions.create_api_key(
        actor=OPERATOR, tenant=alice.tenant, name="short", expires_at=expires_at
    )
    short = type(alice)(alice.tenant, key, secret)

    sandbox_id = short.create()["sandboxID"]

    assert node.guests[sandbox_id].grants == {key.pk: clock.to_ms(expires_at)}


def test_a_key_without_the_scope_gets_nothing_to_revoke(node: NodeDouble, base: Template, alice: Caller) -> None:
    looker = caller(alice.tenant, "looker", ["sandboxes:read"])
    sandbox_id = alice.create()["sandboxID"]
    looker.call("GET", f"/sandboxes/{sandbox_id}")

    assert set(node.guests[sandbox_id].grants) == {alice.key.pk}
