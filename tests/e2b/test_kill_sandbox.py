"""DELETE /sandboxes/{id}."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from sandboxes.models import Sandbox
from tenants.models import Reservation
from tests.sandboxes.fixtures import used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def test_it_kills(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = alice.call("DELETE", f"/sandboxes/{sandbox_id}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert node.running() == []
    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason) == ("ended", "killed")
    assert row.ended_at is not None
    assert used(alice.tenant) == 0
    assert Reservation.everywhere().count() == 0
    assert Event.objects.get(code="sandbox.killed").actor_id == alice.key.pk


def test_a_second_kill_finds_nothing(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    alice.call("DELETE", f"/sandboxes/{sandbox_id}")

    answer = alice.call("DELETE", f"/sandboxes/{sandbox_id}")

    assert (answer.status_code, answer.json()["code"]) == (404, 404)
    assert used(alice.tenant) == 0
    assert Event.objects.filter(code="sandbox.killed").count() == 1


@pytest.mark.parametrize("state", ["starting", "ending"])
def test_it_kills_in_every_state(node: NodeDouble, base: Template, alice: Caller, state: str) -> None:
    sandbox_id = alice.create()["sandboxID"]
    Sandbox.everywhere().update(state=state)

    assert alice.call("DELETE", f"/sandboxes/{sandbox_id}").status_code == 204
    assert Sandbox.everywhere().get().state == "ended"
    assert node.running() == []
    assert used(alice.tenant) == 0


def test_one_that_the_node_lost_is_killed_all_the_same(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.lose(sandbox_id)

    assert alice.call("DELETE", f"/sandboxes/{sandbox_id}").status_code == 204
    assert Sandbox.everywhere().get().end_reason == "killed"
    assert used(alice.tenant) == 0


def test_one_that_had_ended_keeps_its_reason(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.end(sandbox_id, "expired")

    assert alice.call("DELETE", f"/sandboxes/{sandbox_id}").status_code == 204
    assert Sandbox.everywhere().get().end_reason == "expired"


def test_with_the_node_away_it_is_503_and_done_later(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.die()

    answer = alice.call("DELETE", f"/sandboxes/{sandbox_id}")

    assert (answer.status_code, answer.json()["code"]) == (503, 503)
    assert Sandbox.everywhere().get().state == "ending"
    assert used(alice.tenant) == 1
    node.listen()
    assert alice.call("DELETE", f"/sandboxes/{sandbox_id}").status_code == 204
    assert node.running() == []
    assert used(alice.tenant) == 0


def test_a_viewer_may_not_kill(node: NodeDouble, base: Template, alice: Caller, vera: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = vera.call("DELETE", f"/sandboxes/{sandbox_id}")

    assert (answer.status_code, answer.json()["code"]) == (403, 403)
    assert len(node.running()) == 1
    assert Sandbox.everywhere().get().state == "running"


def test_a_body_does_no_harm(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert alice.call("DELETE", f"/sandboxes/{sandbox_id}", {"reason": "x"}).status_code == 204


def test_the_path_may_be_percent_encoded(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    encoded = "".join(f"%{ord(letter):02X}" for letter in sandbox_id)

    assert alice.call("GET", f"/sandboxes/{encoded}").json()["sandboxID"] == sandbox_id
    assert alice.call("DELETE", f"/sandboxes/{encoded}%2Dgatehouse").status_code == 204
    assert alice.call("GET", f"/sandboxes/{sandbox_id}%2Fmetrics").status_code == 404
