"""GET /sandboxes/{id}."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from corekit import clock, tokens
from sandboxes.models import Sandbox
from tests.conftest import SEED

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def test_it_shows(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create(metadata={"a": "b"}, allow_internet_access=False)
    guest = node.guests[made["sandboxID"]]

    answer = alice.call("GET", f"/sandboxes/{made['sandboxID']}")

    assert answer.status_code == 200
    assert answer.json() == {
        "templateID": base.pk,
        "alias": "base",
        "sandboxID": made["sandboxID"],
        "clientID": "gatehouse",
        "envdVersion": "0.6.13",
        "envdAccessToken": made["envdAccessToken"],
        "startedAt": clock.to_rfc3339(guest.started_at),
        "endAt": clock.to_rfc3339(guest.end_at),
        "cpuCount": 1,
        "memoryMB": 512,
        "diskSizeMB": 1024,
        "metadata": {"a": "b"},
        "state": "running",
        "allowInternetAccess": False,
        "domain": None,
        "lifecycle": {"autoResume": False, "onTimeout": "kill"},
        "network": {"allowPublicTraffic": True},
    }
    assert node.count()["grant"] == 0


def test_the_old_form_of_an_id_is_understood(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert alice.call("GET", f"/sandboxes/{sandbox_id}-gatehouse").json()["sandboxID"] == sandbox_id


def test_a_colleague_gets_a_token_of_their_own_that_the_node_knows(
    node: NodeDouble, base: Template, alice: Caller, bob: Caller
) -> None:
    made = alice.create()

    shown = bob.call("GET", f"/sandboxes/{made['sandboxID']}").json()

    access_key = tokens.access_key(bytes.fromhex(SEED), made["sandboxID"], 1)
    assert shown["envdAccessToken"] == tokens.mint(access_key, bob.key.pk)
    assert set(node.guests[made["sandboxID"]].grants) == {alice.key.pk, bob.key.pk}
    assert bob.call("GET", f"/sandboxes/{made['sandboxID']}").json() == shown
    assert node.count()["grant"] == 1


def test_a_viewer_gets_no_token_and_no_grant(node: NodeDouble, base: Template, alice: Caller, vera: Caller) -> None:
    made = alice.create()

    shown = vera.call("GET", f"/sandboxes/{made['sandboxID']}")

    assert shown.status_code == 200
    assert "envdAccessToken" not in shown.json()
    assert set(node.guests[made["sandboxID"]].grants) == {alice.key.pk}


def test_one_that_starts_is_shown_without_a_token(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create(timeout=60)
    Sandbox.everywhere().update(state="starting", end_at=None)

    shown = alice.call("GET", f"/sandboxes/{made['sandboxID']}").json()

    assert shown["state"] == "running"
    assert "envdAccessToken" not in shown
    row = Sandbox.everywhere().get()
    assert shown["endAt"] == clock.to_rfc3339(clock.to_ms(row.started_at) + 60_000)


def test_one_that_the_node_lost_is_not_found_and_ended(
    node: NodeDouble, base: Template, alice: Caller, bob: Caller
) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.lose(sandbox_id)

    answer = bob.call("GET", f"/sandboxes/{sandbox_id}")

    assert (answer.status_code, answer.json()["code"]) == (404, 404)
    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason) == ("ended", "lost")


@pytest.mark.parametrize("sandbox_id", ["iunknown", "I-NO", "a" * 65, "..", "a%00b", "%2e%2e%2fetc", "x'--", "a b"])
def test_an_unknown_id_is_not_found(node: NodeDouble, alice: Caller, sandbox_id: str) -> None:
    answer = alice.call("GET", f"/sandboxes/{sandbox_id}")

    assert (answer.status_code, answer.json()["code"]) == (404, 404)
    assert node.calls == []
