"""Sandboxes and executions under a network policy, over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from corekit.netrules.policy import Policy
from sandboxes.models import Sandbox
from tenants.networks import actions as network_actions
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.api.rest import Rest
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("node", "base")]


def document(node: NodeDouble, sandbox_id: str) -> dict[str, Any]:
    """Return what the node was told; it is one that egress can obey."""
    told: dict[str, Any] = node.guests[sandbox_id].spec["network"]["document"]
    Policy.parse(told)
    return told


def put(rest: Rest, sandbox_id: str, policy: str) -> dict[str, Any]:
    answer = rest.call("PUT", f"sandboxes/{sandbox_id}/network", {"policy": policy})
    assert answer.status_code == 200, answer.content
    changed: dict[str, Any] = answer.json()
    return changed


@pytest.fixture
def models(alice: Caller) -> None:
    """Let Acme have a policy of its own: one host, and one port of the sandbox."""
    body = {"egress": ["api.openai.com:443"], "ingress": [3000]}
    network_actions.create_policy(actor=OPERATOR, tenant=alice.tenant, name="models", body=body)


@pytest.mark.usefixtures("models")
def test_a_sandbox_is_made_under_a_policy(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", {"network": "models"}, status=201)

    assert made["network"] == {
        "mode": "open",
        "policy": "models",
        "asked": {},
        "ingress_ports": [3000],
        "version": 1,
        "in_force": 1,
        "cut": False,
        "rules": {},
        "secrets": {},
        "identities": {},
    }
    assert document(node, made["id"])["layers"][0]["egress"] == ["api.openai.com:443"]
    assert node.guests[made["id"]].spec["ingress"]["ports"] == [3000]
    assert rest.get(f"sandboxes/{made['id']}")["network"] == made["network"]


def test_isolated_is_without_a_network_for_life(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", {"network": "isolated"}, status=201)

    assert (made["network"]["mode"], made["network"]["ingress_ports"]) == ("none", [])
    assert node.guests[made["id"]].spec["network"] is None
    refused = rest.refused("put", f"sandboxes/{made['id']}/network", {"policy": "restricted"})
    assert refused == (409, "network_fixed", None)


def test_the_explicit_proxy_is_in_the_environment_unless_the_user_says_otherwise(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", {"network": "proxied", "env": {"HTTP_PROXY": "http://mine:1"}}, status=201)

    proxy = "http://proxy.internal:8080"
    assert node.guests[made["id"]].spec["env"] == {
        "http_proxy": proxy,
        "https_proxy": proxy,
        "HTTPS_PROXY": proxy,
        "HTTP_PROXY": "http://mine:1",
    }


@pytest.mark.usefixtures("models")
def test_a_sandbox_is_put_under_another_policy_with_its_ports(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", status=201)
    assert (made["network"]["policy"], made["network"]["ingress_ports"]) == (None, None)

    changed = put(rest, made["id"], "models")

    assert (changed["network"]["policy"], changed["network"]["ingress_ports"]) == ("models", [3000])
    assert (changed["network"]["version"], changed["network"]["in_force"]) == (2, 2)
    assert document(node, made["id"])["version"] == 2
    assert node.guests[made["id"]].spec["ingress"]["ports"] == [3000]


def test_another_tenants_policy_is_unknown(rest: Rest, node: NodeDouble, mallory: Caller) -> None:
    network_actions.create_policy(actor=OPERATOR, tenant=mallory.tenant, name="theirs", body={"egress": []})
    made = rest.post("sandboxes", status=201)

    for name in ("theirs", "nothing"):
        assert rest.refused("post", "sandboxes", {"network": name}) == (400, "invalid_input", "network")
        assert rest.refused("post", "executions", {"code": "1", "network": name}) == (400, "invalid_input", "network")
        changed = rest.refused("put", f"sandboxes/{made['id']}/network", {"policy": name})
        assert changed == (400, "invalid_input", "network")
    assert Sandbox.everywhere().count() == 1
    assert node.count()["network"] == 0


def test_a_change_without_a_policy_names_the_field(rest: Rest) -> None:
    made = rest.post("sandboxes", status=201)

    assert rest.refused("put", f"sandboxes/{made['id']}/network", {}) == (400, "invalid_input", "policy")


def test_one_that_has_a_way_out_can_lose_all_of_it(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", status=201)

    changed = put(rest, made["id"], "isolated")

    assert (changed["network"]["mode"], changed["network"]["policy"]) == ("open", "isolated")
    told = document(node, made["id"])
    assert (told["dns"], told["layers"][0]["mode"], told["layers"][0]["egress"]) == (False, "deny", [])
    assert put(rest, made["id"], "restricted")["network"]["version"] == 3
