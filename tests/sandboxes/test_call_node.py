"""The client of the node's internal API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from corekit.errors import TierUnavailable
from sandboxes import node_client
from sandboxes.errors import NodeRefused, NodeSilent, NodeUnavailable, NoRoom, UnknownAtNode
from sandboxes.node_client import NodeClient, StartSpec
from tests.sandboxes.fixtures import at_once

if TYPE_CHECKING:
    from tests.sandboxes.node_double import NodeDouble

SPEC = StartSpec(
    id="i1",
    generation=1,
    tenant="00" * 16,
    build="b-1",
    tier="container",
    profile="workstation",
    resources={"cpu_milli": 1000, "memory_mib": 512, "disk_mib": 1024, "pids": 256},
    env={"TOKEN": "s3cr3t"},
    template_id="base",
    ttl_ms=60_000,
    access_key="ab",
    audit_key="cd",
    grants={},
    ingress={"public": True, "traffic_token": "", "mask_host": "", "https_ports": []},
)


@pytest.fixture
def client(node: NodeDouble) -> NodeClient:
    """A client of its own."""
    return NodeClient(node.socket_path)


def test_it_starts_lists_and_stops(node: NodeDouble, client: NodeClient) -> None:
    started = client.start(SPEC)

    assert client.start(SPEC) == started == client.get("i1")
    assert [row["id"] for row in client.list()["sandboxes"]] == ["i1"]
    assert client.stop("i1", 1) == {"state": "ended", "reason": "killed"}
    client.close()


def test_it_keeps_one_connection_for_one_caller(node: NodeDouble, client: NodeClient) -> None:
    for _ in range(5):
        client.health()

    server = node._server
    assert server is not None
    assert len(server.connections) == 1
    client.close()


def test_many_callers_do_not_mix_their_answers(node: NodeDouble, client: NodeClient) -> None:
    for number in range(8):
        node.emit("file.read", None, details={"n": number})

    answers = at_once(64, lambda n: client.events(after=n % 8, limit=1)["events"][0]["seq"], threads=16)

    assert answers == [n % 8 + 1 for n in range(64)]
    client.close()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "tier_unavailable", TierUnavailable),
        (503, "no_room", NoRoom),
        (404, "unknown_sandbox", UnknownAtNode),
        (404, "", UnknownAtNode),
        (400, "bad_request", NodeRefused),
        (500, "internal", NodeRefused),
    ],
)
def test_errors_have_classes(
    node: NodeDouble, client: NodeClient, status: int, code: str, error: type[Exception]
) -> None:
    node.refuse("health", status, code, "a sentence", message="hidden", field="x", resource="memory_mib")

    with pytest.raises(error):
        client.health()
    client.close()


def test_the_words_of_a_broken_node_reach_no_tenant(node: NodeDouble, client: NodeClient) -> None:
    node.refuse("health", 500, "start_failed", "could not write /srv/gatehouse/node/members/3")

    with pytest.raises(NodeRefused) as refusal:
        client.health()
    assert refusal.value.as_body() == {
        "code": 500,
        "message": "The node could not do this",
        "error_code": "node_error",
        "details": {"node_code": "start_failed"},
    }
    client.close()


def test_a_node_that_does_not_listen_did_nothing(node: NodeDouble, client: NodeClient) -> None:
    node.die()

    with pytest.raises(NodeUnavailable) as refusal:
        client.health()
    assert not isinstance(refusal.value, NodeSilent)
    assert refusal.value.retry_after == 1


def test_a_node_that_breaks_off_may_have_acted(node: NodeDouble, client: NodeClient) -> None:
    node.fail("start", "act_then_die")

    with pytest.raises(NodeSilent):
        client.start(SPEC)


def test_a_kept_connection_that_breaks_with_the_node_may_have_acted(node: NodeDouble, client: NodeClient) -> None:
    client.health()
    node.fail("start", "act_then_die")

    with pytest.raises(NodeSilent):
        client.start(SPEC)


def test_a_restarted_node_is_reached_on_a_new_connection(node: NodeDouble, client: NodeClient) -> None:
    client.health()
    node.die()
    node.listen()

    assert client.health()["node_id"] == node.node_id
    client.close()


def test_a_slow_node_is_not_waited_for(node: NodeDouble, client: NodeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_client, "START_TIMEOUT_S", 0.2)
    node.fail("start", "act_then_stall")

    with pytest.raises(NodeSilent):
        client.start(SPEC)


def test_an_id_can_not_leave_its_place_in_the_path(node: NodeDouble, client: NodeClient) -> None:
    with pytest.raises(UnknownAtNode):
        client.get("../health?x=1#")

    assert node.calls[-1][1] == "/v1/sandboxes/..%2Fhealth%3Fx%3D1%23"
    client.close()


def test_secrets_stay_out_of_what_is_printed() -> None:
    assert repr(SPEC) == "StartSpec('i1', generation=1)"
