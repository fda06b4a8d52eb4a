"""POST /sandboxes/{id}/timeout and POST /sandboxes/{id}/refreshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from sandboxes.models import Sandbox
from tests.sandboxes.fixtures import used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def lifetime_s(node: NodeDouble, sandbox_id: str) -> float:
    """Return how long the node lets the sandbox live in all."""
    guest = node.guests[sandbox_id]
    return (guest.end_at - guest.started_at) / 1000


@pytest.mark.parametrize("timeout", [5, 900])
def test_it_sets_the_end_earlier_or_later(node: NodeDouble, base: Template, alice: Caller, timeout: int) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": timeout})

    assert (answer.status_code, answer.content) == (204, b"")
    assert timeout <= lifetime_s(node, sandbox_id) < timeout + 30
    row = Sandbox.everywhere().get()
    assert row.end_at == clock.from_ms(node.guests[sandbox_id].end_at)
    event = Event.objects.get(code="sandbox.timeout_set")
    assert (event.actor_id, event.details) == (alice.key.pk, {"timeout_ms": timeout * 1000})


def test_0_ends_it_at_once(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert alice.call("POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": 0}).status_code == 204
    assert node.running() == []
    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason) == ("ended", "expired")
    assert used(alice.tenant) == 0
    assert alice.call("GET", f"/sandboxes/{sandbox_id}").status_code == 404


@pytest.mark.parametrize("timeout", [-1, 86_401, 10**12, "5", True, None, 0.5, {}], ids=str)
def test_it_rejects_a_bad_timeout(node: NodeDouble, base: Template, alice: Caller, timeout: Any) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": timeout})

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, 400, "timeout")
    assert node.count()["deadline"] == 0
    assert len(node.running()) == 1


def test_it_demands_the_timeout(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert alice.call("POST", f"/sandboxes/{sandbox_id}/timeout", {}).json()["message"] == "timeout is required."


@pytest.mark.parametrize(("body", "seconds"), [({}, 15), ({"duration": 3}, 15), ({"duration": 60}, 60), (None, 15)])
def test_a_refresh_extends_by_at_least_15_seconds(
    node: NodeDouble, base: Template, alice: Caller, body: Any, seconds: int
) -> None:
    sandbox_id = alice.create(timeout=2)["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/refreshes", body)

    assert (answer.status_code, answer.content) == (204, b"")
    assert seconds <= lifetime_s(node, sandbox_id) < seconds + 30
    assert Event.objects.filter(code="sandbox.refreshed").count() == 1


def test_a_refresh_never_shortens(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(timeout=600)["sandboxID"]

    alice.call("POST", f"/sandboxes/{sandbox_id}/refreshes", {"duration": 20})

    assert lifetime_s(node, sandbox_id) == 600


@pytest.mark.parametrize("duration", [-1, 86_401, "20", True, 1.5], ids=str)
def test_it_rejects_a_bad_duration(node: NodeDouble, base: Template, alice: Caller, duration: Any) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/refreshes", {"duration": duration})

    assert (answer.status_code, answer.json()["field"]) == (400, "duration")


@pytest.mark.parametrize("path", ["timeout", "refreshes"])
def test_a_viewer_may_not(node: NodeDouble, base: Template, alice: Caller, vera: Caller, path: str) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = vera.call("POST", f"/sandboxes/{sandbox_id}/{path}", {"timeout": 0, "duration": 20})

    assert (answer.status_code, answer.json()["code"]) == (403, 403)
    assert lifetime_s(node, sandbox_id) == 300


def test_it_may_be_told_only_to_extend(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(timeout=600)["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": 20, "extendOnly": True})

    assert answer.status_code == 204
    assert lifetime_s(node, sandbox_id) == 600
