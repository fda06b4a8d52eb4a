"""POST /v2/sandboxes/{id}/connect and POST /sandboxes/{id}/connect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from sandboxes.models import Sandbox

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def end_at(sandbox_id: str) -> int:
    """Return when the row says that the sandbox ends."""
    moment = Sandbox.everywhere().get(pk=sandbox_id).end_at
    assert moment is not None
    return clock.to_ms(moment)


@pytest.mark.parametrize("path", ["/v2/sandboxes/{}/connect", "/sandboxes/{}/connect"])
def test_it_connects_and_extends(node: NodeDouble, base: Template, alice: Caller, path: str) -> None:
    made = alice.create(timeout=60)

    answer = alice.call("POST", path.format(made["sandboxID"]), {"timeout": 600})

    assert answer.status_code == 200
    assert answer.json() == made
    guest = node.guests[made["sandboxID"]]
    assert 600_000 <= guest.end_at - guest.started_at < 630_000
    assert end_at(made["sandboxID"]) == guest.end_at
    assert Event.objects.get(code="sandbox.connected").details == {"timeout_ms": 600_000}


def test_it_never_shortens(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create(timeout=600)
    before = end_at(made["sandboxID"])

    assert alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 1}).status_code == 200
    assert end_at(made["sandboxID"]) == before == node.guests[made["sandboxID"]].end_at


def test_version_2_extends_by_300_seconds_by_default(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create(timeout=10)

    assert alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect").status_code == 200
    guest = node.guests[made["sandboxID"]]
    assert guest.end_at - guest.started_at >= 300_000


def test_version_1_demands_the_timeout(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create()

    answer = alice.call("POST", f"/sandboxes/{made['sandboxID']}/connect", {})

    assert (answer.status_code, answer.json()["field"]) == (400, "timeout")


def test_a_colleague_gets_a_token_of_their_own(node: NodeDouble, base: Template, alice: Caller, bob: Caller) -> None:
    made = alice.create()

    body = bob.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60}).json()

    assert body["envdAccessToken"] != made["envdAccessToken"]
    assert body["envdAccessToken"].startswith(f"gh_{bob.key.pk}_")
    assert bob.key.pk in node.guests[made["sandboxID"]].grants


def test_a_viewer_may_not_connect(node: NodeDouble, base: Template, alice: Caller, vera: Caller) -> None:
    made = alice.create()

    answer = vera.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60})

    assert (answer.status_code, answer.json()["code"]) == (403, 403)
    assert set(node.guests[made["sandboxID"]].grants) == {alice.key.pk}
    assert node.count()["deadline"] == 0


def test_a_lifetime_beyond_the_longest_one_is_cut_to_it(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create(timeout=86_400)
    started = clock.now()
    Sandbox.everywhere().update(started_at=clock.from_ms(clock.to_ms(started) - 3_600_000))

    alice.call("POST", f"/sandboxes/{made['sandboxID']}/timeout", {"timeout": 86_400})

    assert end_at(made["sandboxID"]) <= clock.to_ms(started) + 82_800_000 + 30_000


@pytest.mark.parametrize("state", ["starting", "ending"])
def test_while_it_starts_or_ends_it_is_a_conflict(node: NodeDouble, base: Template, alice: Caller, state: str) -> None:
    made = alice.create()
    Sandbox.everywhere().update(state=state)

    answer = alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60})

    assert (answer.status_code, answer.json()["code"]) == (409, 409)


def test_one_that_ended_at_the_node_is_not_found(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create()
    node.end(made["sandboxID"], "out_of_memory")

    answer = alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60})

    assert answer.status_code == 404
    assert Sandbox.everywhere().get().end_reason == "out_of_memory"
    assert list(Event.objects.filter(code="sandbox.connected").values_list("outcome", flat=True).order_by("id")) == [
        "ok",
        "error",
    ]


def test_with_the_node_away_it_is_503(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create()
    node.die()

    answer = alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60})

    assert (answer.status_code, answer.json()["code"]) == (503, 503)
    assert Sandbox.everywhere().get().state == "running"


@pytest.mark.parametrize("timeout", [0, -1, 86_401, 10**12, "60", True, None, 1.5, []], ids=str)
def test_it_rejects_a_bad_timeout(node: NodeDouble, base: Template, alice: Caller, timeout: Any) -> None:
    made = alice.create()
    before = end_at(made["sandboxID"])

    answer = alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": timeout})

    assert (answer.status_code, answer.json()["field"]) == (400, "timeout")
    assert end_at(made["sandboxID"]) == before
    assert node.count()["deadline"] == 0
