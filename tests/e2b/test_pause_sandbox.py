"""Pausing over the E2B API, and everything that is different about a paused sandbox."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from sandboxes import events, node_client, reconcile
from sandboxes.models import Sandbox
from tenants import actions as tenant_actions
from tenants import quota
from tenants.models import Reservation
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import assert_counters_equal_reality, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


def paused(who: Caller, **body: Any) -> dict[str, Any]:
    """Create a sandbox, pause it, and return the create's answer."""
    made = who.create(**body)
    answer = who.call("POST", f"/sandboxes/{made['sandboxID']}/pause")
    assert (answer.status_code, answer.content) == (204, b"")
    return made


def test_it_pauses(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = paused(alice)

    guest, row = node.guests[made["sandboxID"]], Sandbox.everywhere().get()
    assert (guest.state, row.state) == ("paused", "paused")
    assert clock.to_ms(row.paused_at or clock.now()) == guest.paused_at
    event = Event.objects.get(code="sandbox.pausing")
    assert (event.actor_id, event.object_id, event.details) == (
        alice.key.pk,
        made["sandboxID"],
        {"reason": "requested"},
    )


@pytest.mark.parametrize("body", [None, {}, {"memory": True}, {"memory": None}, {"requireHealthyGuest": True}])
def test_its_body_may_be_anything_that_keeps_the_memory(
    node: NodeDouble, base: Template, alice: Caller, body: Any
) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert alice.call("POST", f"/sandboxes/{sandbox_id}/pause", body).status_code == 204


def test_a_pause_without_memory_is_not_offered(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/pause", {"memory": False})

    assert (answer.status_code, answer.json()["field"], answer["Should-Retry"]) == (501, "memory", "false")
    assert node.guests[sandbox_id].state == "running"


def test_it_gives_back_concurrency_and_cpu_and_keeps_memory_and_disk(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    sandbox_id = paused(alice)["sandboxID"]

    counted = quota.usage(alice.tenant.pk).used
    assert (counted.sandboxes, counted.cpu_milli, counted.request_cpu_milli) == (0, 0, 0)
    assert (counted.memory_mib, counted.disk_mib, counted.request_memory_mib) == (512, 1024, 128)
    assert Reservation.everywhere().get().state == "parked"

    assert alice.call("POST", f"/v2/sandboxes/{sandbox_id}/connect", {}).status_code == 201
    assert_counters_equal_reality(alice.tenant, node)


def test_pausing_again_is_a_conflict(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = paused(alice)["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/pause")

    assert (answer.status_code, answer.json()["code"]) == (409, 409)
    assert answer.json()["message"] == "The sandbox is paused."
    assert node.count()["pause"] == 1


def test_a_viewer_may_not(node: NodeDouble, base: Template, alice: Caller, vera: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert vera.call("POST", f"/sandboxes/{sandbox_id}/pause").status_code == 403
    assert node.guests[sandbox_id].state == "running"


@pytest.mark.parametrize("state", ["starting", "resuming", "ending"])
def test_one_that_starts_or_ends_is_a_conflict(node: NodeDouble, base: Template, alice: Caller, state: str) -> None:
    sandbox_id = alice.create()["sandboxID"]
    Sandbox.everywhere().update(state=state)

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/pause")

    assert (answer.status_code, answer.json()["details"]) == (409, {"state": state})
    assert node.count()["pause"] == 0


def test_an_unknown_one_is_404(node: NodeDouble, base: Template, alice: Caller) -> None:
    assert alice.call("POST", "/sandboxes/i00000000000000000000/pause").status_code == 404


def test_one_that_the_node_lost_is_404(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.lose(sandbox_id)

    assert alice.call("POST", f"/sandboxes/{sandbox_id}/pause").status_code == 404
    assert (Sandbox.everywhere().get().state, used(alice.tenant)) == ("ended", 0)


# --- connect and resume


def test_connecting_lets_it_go_on_with_the_same_token(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = paused(alice, timeout=60)
    guest = node.guests[made["sandboxID"]]
    before = clock.epoch_ms()

    answer = alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 600})

    assert answer.status_code == 201
    assert answer.json() == made
    assert guest.state == "running"
    assert 600_000 <= guest.end_at - before < 605_000
    row = Sandbox.everywhere().get()
    assert (row.state, row.paused_at, clock.to_ms(row.end_at or clock.now())) == ("running", None, guest.end_at)
    event = Event.objects.get(code="sandbox.resuming")
    assert event.details == {"timeout_ms": 600_000, "reason": "connect"}


def test_its_time_is_set_anew_also_to_less_than_before(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = paused(alice, timeout=3600)

    alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 60})

    assert node.guests[made["sandboxID"]].end_at - clock.epoch_ms() <= 60_000


def test_a_colleague_who_connects_gets_a_token_that_counts(
    node: NodeDouble, base: Template, alice: Caller, bob: Caller
) -> None:
    made = paused(alice)

    answer = bob.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {})

    assert (answer.status_code, answer.json()["envdAccessToken"] != made["envdAccessToken"]) == (201, True)
    assert set(node.guests[made["sandboxID"]].grants) == {alice.key.pk, bob.key.pk}


def test_the_resume_of_old_clients(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = paused(alice)

    answer = alice.call("POST", f"/sandboxes/{made['sandboxID']}/resume", {})

    assert (answer.status_code, answer.json()) == (201, made)
    assert 14_000 < node.guests[made["sandboxID"]].end_at - clock.epoch_ms() <= 15_000


@pytest.mark.parametrize("body", [{"timeout": 60, "autoPause": False}, {"autoPause": True}, {"memory": True}])
def test_its_body_may_say_what_holds_anyway(node: NodeDouble, base: Template, alice: Caller, body: Any) -> None:
    made = paused(alice, autoPause=True)

    assert alice.call("POST", f"/sandboxes/{made['sandboxID']}/resume", body).status_code == 201


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/sandboxes/{}/resume", {"autoPause": True}, "autoPause"),
        ("/sandboxes/{}/resume", {"memory": False}, "memory"),
        ("/v2/sandboxes/{}/connect", {"memory": False}, "memory"),
    ],
)
def test_what_a_later_version_brings_is_refused_by_name(
    node: NodeDouble, base: Template, alice: Caller, path: str, body: Any, field: str
) -> None:
    sandbox_id = paused(alice)["sandboxID"]

    answer = alice.call("POST", path.format(sandbox_id), body)

    assert (answer.status_code, answer.json()["field"]) == (501, field)
    assert node.guests[sandbox_id].state == "paused"


def test_resuming_one_that_runs_is_a_conflict(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/resume", {})

    assert (answer.status_code, answer.json()["message"]) == (409, "The sandbox is running.")


@pytest.mark.parametrize("value", [0, -1, 10**12, "abc", None])
@pytest.mark.parametrize("path", ["/v2/sandboxes/{}/connect", "/sandboxes/{}/resume"])
def test_a_strange_timeout_is_refused_and_wakes_nobody(
    node: NodeDouble, base: Template, alice: Caller, path: str, value: object
) -> None:
    sandbox_id = paused(alice)["sandboxID"]

    answer = alice.call("POST", path.format(sandbox_id), {"timeout": value})

    assert (answer.status_code, answer.json()["field"]) == (400, "timeout")
    assert node.guests[sandbox_id].state == "paused"


@pytest.mark.parametrize("path", ["/v2/sandboxes/{}/connect", "/sandboxes/{}/resume"])
def test_without_quota_it_stays_paused_and_clients_are_told_not_to_retry(
    node: NodeDouble, base: Template, alice: Caller, path: str
) -> None:
    tenant_actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_sandboxes=1)
    first = paused(alice)["sandboxID"]
    second = alice.create()["sandboxID"]

    answer = alice.call("POST", path.format(first), {"timeout": 60})

    assert (answer.status_code, answer["Should-Retry"]) == (429, "false")
    assert answer.json()["error_code"] == "quota_exceeded"
    assert answer.json()["details"]["used_by"] == [second]
    assert (node.guests[first].state, Sandbox.everywhere().get(pk=first).state) == ("paused", "paused")
    assert Reservation.everywhere().get(pk=first).state == "parked"
    assert Event.objects.filter(code="quota.refused").count() == 1
    assert not Event.objects.filter(code="sandbox.resuming").exists()

    alice.call("DELETE", f"/sandboxes/{second}")
    assert alice.call("POST", path.format(first), {"timeout": 60}).status_code == 201
    assert_counters_equal_reality(alice.tenant, node)


def test_when_the_node_is_away_it_stays_paused(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = paused(alice)["sandboxID"]
    node.die()

    answer = alice.call("POST", f"/v2/sandboxes/{sandbox_id}/connect", {})

    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert (Sandbox.everywhere().get().state, used(alice.tenant)) == ("paused", 0)


def test_the_longest_lifetime_counts_from_the_resuming(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = paused(alice)["sandboxID"]
    # As after two days of pause.
    Sandbox.everywhere().update(started_at=clock.from_ms(clock.epoch_ms() - 2 * 86_400_000))
    alice.call("POST", f"/v2/sandboxes/{sandbox_id}/connect", {"timeout": 60})

    assert alice.call("POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": 3600}).status_code == 204

    assert node.guests[sandbox_id].end_at - clock.epoch_ms() > 3_500_000


# --- what a paused sandbox shows and takes


def test_it_is_shown_as_paused_with_the_time_of_the_pause(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = paused(alice, metadata={"a": "b"})

    shown = alice.call("GET", f"/sandboxes/{made['sandboxID']}").json()

    assert (shown["state"], shown["pauseMode"]) == ("paused", "full")
    assert shown["endAt"] == clock.to_rfc3339(node.guests[made["sandboxID"]].paused_at or 0)
    assert (shown["metadata"], shown["envdAccessToken"]) == ({"a": "b"}, made["envdAccessToken"])


def test_a_pausing_one_is_shown_as_paused(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    Sandbox.everywhere().update(state="pausing")

    assert alice.call("GET", f"/sandboxes/{sandbox_id}").json()["state"] == "paused"


def test_it_is_listed_with_the_running_ones_newest_first(node: NodeDouble, base: Template, alice: Caller) -> None:
    first, second, third = paused(alice), alice.create(), paused(alice)
    names = {made["sandboxID"]: number for number, made in enumerate((first, second, third), 1)}

    def listed(path: str) -> list[tuple[int, str]]:
        return [(names[one["sandboxID"]], one["state"]) for one in alice.call("GET", path).json()]

    both = [(3, "paused"), (2, "running"), (1, "paused")]
    assert listed("/v2/sandboxes") == listed("/v2/sandboxes?state=running,paused") == both
    assert listed("/v2/sandboxes?state=paused") == [(3, "paused"), (1, "paused")]
    assert listed("/v2/sandboxes?state=paused&order=asc") == [(1, "paused"), (3, "paused")]
    assert listed("/v2/sandboxes?state=running") == listed("/sandboxes") == [(2, "running")]
    assert alice.call("GET", "/v2/sandboxes")["X-Total-Running"] == "1"
    assert "X-Total-Running" not in alice.call("GET", "/v2/sandboxes?state=paused")


@pytest.mark.parametrize("call", [("timeout", {"timeout": 60}), ("timeout", {"timeout": 0}), ("refreshes", {})])
def test_its_time_can_not_be_set(
    node: NodeDouble, base: Template, alice: Caller, call: tuple[str, dict[str, int]]
) -> None:
    sandbox_id = paused(alice, autoPause=True)["sandboxID"]

    answer = alice.call("POST", f"/sandboxes/{sandbox_id}/{call[0]}", call[1])

    assert (answer.status_code, answer.json()["message"]) == (409, "The sandbox is paused.")
    assert node.guests[sandbox_id].state == "paused"


def test_it_can_be_killed(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = paused(alice)["sandboxID"]

    assert alice.call("DELETE", f"/sandboxes/{sandbox_id}").status_code == 204

    assert node.guests[sandbox_id].state == "ended"
    assert not Reservation.everywhere().exists()
    assert_counters_equal_reality(alice.tenant, node)


def test_its_environment_and_keys_are_those_of_the_start(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = paused(alice, envVars={"A": "b"})
    alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {})

    assert (node.count()["start"], node.guests[made["sandboxID"]].generation) == (1, 1)
    assert node.guests[made["sandboxID"]].spec["env"] == {"A": "b"}


# --- pauses that nobody asked for


def test_a_sandbox_may_be_paused_at_the_end_of_its_time(node: NodeDouble, base: Template, alice: Caller) -> None:
    made = alice.create(autoPause=True, autoResume={"enabled": True}, timeout=60)
    guest = node.guests[made["sandboxID"]]
    assert (guest.spec["on_timeout"], guest.spec["auto_resume"]) == ("pause", True)
    shown = alice.call("GET", f"/sandboxes/{made['sandboxID']}").json()
    assert shown["lifecycle"] == {"autoResume": True, "onTimeout": "pause"}

    node.expire(made["sandboxID"])
    Sandbox.everywhere().update(end_at=clock.from_ms(guest.end_at))
    events.collect(node_client.local_node())

    row = Sandbox.everywhere().get()
    assert (row.state, used(alice.tenant)) == ("paused", 0)
    assert clock.to_ms(row.paused_at or clock.now()) == guest.paused_at
    assert alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {}).status_code == 201
    assert_counters_equal_reality(alice.tenant, node)


def test_connecting_before_that_is_known_here_lets_it_go_on(node: NodeDouble, base: Template, alice: Caller) -> None:
    for path in ("/v2/sandboxes/{}/connect", "/sandboxes/{}/resume"):
        sandbox_id = alice.create(autoPause=True)["sandboxID"]
        node.expire(sandbox_id)

        assert alice.call("POST", path.format(sandbox_id), {"timeout": 60}).status_code == 201

        # The late event is about the pause that is over.
        events.collect(node_client.local_node())
        assert (Sandbox.everywhere().get(pk=sandbox_id).state, node.guests[sandbox_id].state) == ("running", "running")
    assert_counters_equal_reality(alice.tenant, node)


def test_the_reconciler_finds_it_too(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(autoPause=True)["sandboxID"]
    node.expire(sandbox_id)

    reconcile.reconcile(node_client.local_node())

    assert (Sandbox.everywhere().get().state, used(alice.tenant)) == ("paused", 0)


def test_a_timeout_of_zero_pauses_at_once(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(autoPause=True)["sandboxID"]

    assert alice.call("POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": 0}).status_code == 204

    assert (node.guests[sandbox_id].state, Sandbox.everywhere().get().state) == ("paused", "paused")
    assert Event.objects.get(code="sandbox.pausing").details == {"reason": "expired"}


def test_five_rounds_end_where_they_began(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    for _ in range(5):
        assert alice.call("POST", f"/sandboxes/{sandbox_id}/pause").status_code == 204
        assert alice.call("POST", f"/v2/sandboxes/{sandbox_id}/connect", {}).status_code == 201
        events.collect(node_client.local_node())
        reconcile.reconcile(node_client.local_node())

    assert (Sandbox.everywhere().get().state, node.guests[sandbox_id].state) == ("running", "running")
    assert_counters_equal_reality(alice.tenant, node)


def test_a_private_sandbox_shows_the_token_of_its_ports(node: NodeDouble, base: Template, alice: Caller) -> None:
    network = {
        "allowPublicTraffic": False,
        "maskRequestHost": "${PORT}-app.example.com:8443",
        "httpsPorts": [3000, 3000],
    }
    made = paused(alice, network=network)
    guest = node.guests[made["sandboxID"]]

    token = made["trafficAccessToken"]
    assert guest.spec["ingress"] == {
        "public": False,
        "traffic_token": token,
        "mask_host": "${PORT}-app.example.com:8443",
        "https_ports": [3000],
        "ports": None,
    }
    assert len(bytes.fromhex(token)) == 32
    connected = alice.call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {}).json()
    assert connected["trafficAccessToken"] == token
    shown = alice.call("GET", f"/sandboxes/{made['sandboxID']}").json()
    assert shown["network"] == network | {"httpsPorts": [3000]}
    assert token not in str(shown)
    assert alice.create()["trafficAccessToken"] is None


def test_detail_of_a_paused_one_costs_the_node_nothing(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = paused(alice)["sandboxID"]
    node.calls.clear()
    began = time.monotonic()

    assert alice.call("GET", f"/sandboxes/{sandbox_id}").status_code == 200

    assert (node.calls, time.monotonic() - began < 1) == ([], True)
