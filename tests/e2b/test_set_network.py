"""What a sandbox may reach in E2B's words: `network` at create, PUT /sandboxes/{id}/network, and what is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.netrules.policy import Policy
from sandboxes import actions, tasks
from sandboxes.models import Sandbox
from tenants.models import TenantNetwork
from tenants.networks import E2BNetwork, compile_network
from tenants.networks.compiling import policy_named
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)

EVERYWHERE = "0.0.0.0/0"
NEEDS_DENY = (
    "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out to block all other"
    " traffic."
)
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PROXY = {
    "address": "proxy.example.com:1080",
    "username": "carol",
    "password": "pa55word-of-carol",
    "tls": {"enabled": True, "serverName": "proxy.example.com", "caCert": PEM},
}


def document(node: NodeDouble, sandbox_id: str) -> dict[str, Any]:
    """Return what the node was told; it is one that egress can obey."""
    told: dict[str, Any] = node.guests[sandbox_id].spec["network"]["document"]
    Policy.parse(told)
    return told


def put(caller: Caller, sandbox_id: str, **body: object) -> Any:
    return caller.call("PUT", f"/sandboxes/{sandbox_id}/network", body)


def shown(caller: Caller, sandbox_id: str) -> dict[str, Any]:
    found: dict[str, Any] = caller.call("GET", f"/sandboxes/{sandbox_id}").json()
    return found


def row(sandbox_id: str) -> Sandbox:
    return Sandbox.everywhere().get(pk=sandbox_id)


# --- create


def test_without_a_word_it_is_the_tenants_ceiling(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    told = document(node, sandbox_id)
    assert (told["version"], [layer["name"] for layer in told["layers"]]) == (1, ["sandbox", "tenant"])
    assert (told["layers"][0]["mode"], told["layers"][0]["egress"]) == ("allow", [])
    assert told["layers"][1]["mode"] == "deny"
    found = row(sandbox_id)
    assert (found.network_mode, found.network_policy, found.network) == ("open", "", {})
    assert (found.network_version, found.network_acked) == (1, 1)


def test_a_default_that_was_set_holds_for_who_says_nothing(node: NodeDouble, base: Template, alice: Caller) -> None:
    TenantNetwork.everywhere().update_or_create(
        tenant=alice.tenant, defaults={"default": policy_named(alice.tenant, "isolated")}
    )

    silent, asking = alice.create()["sandboxID"], alice.create(allow_internet_access=True)["sandboxID"]

    assert node.guests[silent].spec["network"] is None
    assert (row(silent).network_mode, row(silent).network_policy) == ("none", "isolated")
    assert (row(asking).network_mode, row(asking).network_policy) == ("open", "")


def test_lists_become_the_sandboxes_own_layer_under_the_ceiling(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    network = {"allowOut": ["API.Example.com", "8.8.8.0/24", "*.example.org"], "denyOut": [EVERYWHERE]}

    sandbox_id = alice.create(network=network)["sandboxID"]

    words = E2BNetwork(
        allow_out=("api.example.com", "8.8.8.0/24", "*.example.org"), deny_out=(EVERYWHERE,), allow_internet_access=None
    )
    assert document(node, sandbox_id) == compile_network(alice.tenant, e2b=words).document
    assert shown(alice, sandbox_id)["network"] == {
        "allowPublicTraffic": True,
        "allowOut": ["api.example.com", "8.8.8.0/24", "*.example.org"],
        "denyOut": [EVERYWHERE],
    }


def test_no_internet_access_is_all_denied(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(allow_internet_access=False)["sandboxID"]

    layer = document(node, sandbox_id)["layers"][0]
    assert (layer["mode"], layer["egress"]) == ("deny", [])
    assert shown(alice, sandbox_id)["allowInternetAccess"] is False


def test_names_may_be_allowed_where_all_is_denied_by_the_other_field(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    sandbox_id = alice.create(allow_internet_access=False, network={"allowOut": ["a.example.com"]})["sandboxID"]

    assert document(node, sandbox_id)["layers"][0]["egress"] == ["a.example.com:443", "a.example.com:80"]


def test_no_dns_server_is_no_dns(node: NodeDouble, base: Template, alice: Caller) -> None:
    without = alice.create(network={"dnsServers": []})["sandboxID"]
    some = alice.create(network={"dnsServers": ["1.1.1.1"]})["sandboxID"]

    assert (document(node, without)["dns"], document(node, some)["dns"]) == (False, True)
    assert shown(alice, without)["network"]["dnsServers"] == []
    assert shown(alice, some)["network"]["dnsServers"] == ["1.1.1.1"]


def test_an_upstream_proxy_reaches_the_node_and_its_password_nothing_else(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    sandbox_id = alice.create(network={"egressProxy": PROXY})["sandboxID"]

    assert document(node, sandbox_id)["egress_proxy"] == PROXY
    assert shown(alice, sandbox_id)["network"]["egressProxy"] == {
        "address": "proxy.example.com:1080",
        "username": "carol",
        "tls": {"enabled": True, "serverName": "proxy.example.com"},
    }
    kept = json.dumps([*Sandbox.everywhere().values(), *Event.objects.values()], default=str)
    assert "pa55word" not in kept
    assert "BEGIN CERTIFICATE" not in kept


def test_nothing_starts_while_nobody_would_obey(node: NodeDouble, base: Template, alice: Caller) -> None:
    node.refuse("start", 503, "egress_unavailable")

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})

    assert (answer.status_code, answer.json()["error_code"]) == (503, "egress_unavailable")
    assert int(answer["Retry-After"]) >= 1
    assert [(one.state, one.end_reason) for one in Sandbox.everywhere()] == [("ended", "start_failed")]
    assert used(alice.tenant) == 0


BAD = [
    ({"allowOut": "a.example.com"}, "allowOut", "network.allowOut must be a list of at most 256 texts."),
    ({"allowOut": [1]}, "allowOut", "network.allowOut must hold texts."),
    ({"allowOut": ["a.example.com"]}, "allowOut", NEEDS_DENY),
    ({"allowOut": ["*"], "denyOut": ["10.1.2.3"]}, "allowOut", NEEDS_DENY),
    ({"allowOut": ["300.1.1.1"]}, "allowOut", "invalid allowed address 300.1.1.1"),
    ({"allowOut": ["8.8.8.8/33"]}, "allowOut", "invalid allowed address 8.8.8.8/33"),
    ({"allowOut": ["a b.example"], "denyOut": [EVERYWHERE]}, "allowOut", "invalid allowed address a b.example"),
    ({"allowOut": ["*.com"], "denyOut": [EVERYWHERE]}, "allowOut", "invalid allowed address *.com"),
    ({"allowOut": ["a.*.example"], "denyOut": [EVERYWHERE]}, "allowOut", "invalid allowed address a.*.example"),
    ({"allowOut": ["a.example:443"], "denyOut": [EVERYWHERE]}, "allowOut", "invalid allowed address a.example:443"),
    ({"denyOut": ["evil.example"]}, "denyOut", "invalid denied CIDR evil.example"),
    ({"denyOut": ["10.0.0.0/40"]}, "denyOut", "invalid denied CIDR 10.0.0.0/40"),
    ({"dnsServers": ["dns.example"]}, "dnsServers", "invalid DNS server dns.example"),
    ({"dnsServers": ["::1"]}, "dnsServers", "invalid DNS server ::1"),
    ({"dnsServers": ["1.1.1.1"] * 11}, "dnsServers", "network.dnsServers must be a list of at most 10 texts."),
    ({"egressProxy": "a:1"}, "egressProxy", "Invalid egress proxy config: it must be an object."),
    ({"egressProxy": {}}, "egressProxy", "Invalid egress proxy config: address must be host:port."),
    ({"egressProxy": {"address": "a"}}, "egressProxy", "Invalid egress proxy config: address must be host:port."),
    (
        {"egressProxy": {"address": "10.0.0.1:1080"}},
        "egressProxy",
        "Invalid egress proxy config: address must be a public one.",
    ),
    (
        {"egressProxy": {"address": "a.example:1080", "password": "x"}},
        "egressProxy",
        "Invalid egress proxy config: a password needs a username.",
    ),
    (
        {"egressProxy": {"address": "a.example:1080", "username": "x" * 256}},
        "egressProxy",
        "Invalid egress proxy config: username must have 1 to 255 bytes.",
    ),
    (
        {"egressProxy": {"address": "a.example:1080", "tls": {"enabled": True, "caCert": "x"}}},
        "egressProxy",
        "Invalid egress proxy config: tls.caCert must be a certificate in PEM.",
    ),
]


@pytest.mark.parametrize(("network", "field", "message"), BAD, ids=[message for _, _, message in BAD])
def test_what_can_not_be_meant_is_refused_by_name_at_create_and_later(
    node: NodeDouble, base: Template, alice: Caller, network: dict[str, Any], field: str, message: str
) -> None:
    sandbox_id = alice.create()["sandboxID"]

    made = alice.call("POST", "/v2/sandboxes", {"templateID": "base", "network": network})
    changed = put(alice, sandbox_id, **network)

    assert (made.status_code, made.json()["message"], made.json()["field"]) == (400, message, f"network.{field}")
    plain = message.replace("network.", "")
    assert (changed.status_code, changed.json()["message"], changed.json()["field"]) == (400, plain, field)
    assert [one.pk for one in Sandbox.everywhere()] == [sandbox_id]
    assert (row(sandbox_id).network_version, node.count()["network"]) == (1, 0)


# --- change


def test_a_change_holds_when_it_is_answered(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = put(alice, sandbox_id, denyOut=[EVERYWHERE])

    assert (answer.status_code, answer.content) == (204, b"")
    told = document(node, sandbox_id)
    assert (told["version"], told["layers"][0]["mode"]) == (2, "deny")
    found = row(sandbox_id)
    assert (found.network_version, found.network_acked, found.network) == (2, 2, {"denyOut": [EVERYWHERE]})
    (event,) = Event.objects.filter(code="sandbox.network_changed")
    assert (event.tenant_id, event.actor_id, event.object_id) == (alice.tenant.pk, alice.key.pk, sandbox_id)
    assert (event.policy_version, event.details) == ("2", {"policy": "", "version": 2, "reason": "requested"})


def test_all_is_replaced_and_how_requests_come_in_is_not(node: NodeDouble, base: Template, alice: Caller) -> None:
    network = {"denyOut": ["1.2.3.4"], "egressProxy": PROXY, "allowPublicTraffic": False, "httpsPorts": [3000]}
    sandbox_id = alice.create(network=network, allow_internet_access=True)["sandboxID"]

    assert put(alice, sandbox_id).status_code == 204

    told = document(node, sandbox_id)
    assert (told["layers"][0]["mode"], told["layers"][0]["egress"], told["egress_proxy"]) == ("allow", [], None)
    found = shown(alice, sandbox_id)
    assert found["network"] == {"allowPublicTraffic": False, "httpsPorts": [3000]}
    assert found["allowInternetAccess"] is None
    assert row(sandbox_id).network_secrets == ""


def test_access_is_taken_and_given_again(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert put(alice, sandbox_id, allow_internet_access=False).status_code == 204
    assert shown(alice, sandbox_id)["allowInternetAccess"] is False
    assert put(alice, sandbox_id, allow_internet_access=True).status_code == 204

    assert (document(node, sandbox_id)["version"], document(node, sandbox_id)["layers"][0]["mode"]) == (3, "allow")


@pytest.mark.parametrize("field", ["allowPublicTraffic", "maskRequestHost", "httpsPorts"])
def test_how_requests_come_in_can_not_be_changed(node: NodeDouble, base: Template, alice: Caller, field: str) -> None:
    sandbox_id = alice.create()["sandboxID"]

    answer = put(alice, sandbox_id, **{field: None})

    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_a_strangers_sandbox_is_not_found(node: NodeDouble, base: Template, alice: Caller, mallory: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert put(mallory, sandbox_id).status_code == 404
    assert put(alice, "iunknown").status_code == 404
    assert (row(sandbox_id).network_version, node.count()["network"]) == (1, 0)


def test_who_may_only_look_changes_nothing(node: NodeDouble, base: Template, alice: Caller, vera: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert put(vera, sandbox_id).status_code == 403
    assert row(sandbox_id).network_version == 1


def test_one_without_a_network_stays_without(node: NodeDouble, base: Template, alice: Caller) -> None:
    TenantNetwork.everywhere().update_or_create(
        tenant=alice.tenant, defaults={"default": policy_named(alice.tenant, "isolated")}
    )
    sandbox_id = alice.create()["sandboxID"]

    answer = put(alice, sandbox_id)

    assert (answer.status_code, answer.json()["error_code"]) == (409, "network_fixed")
    assert (row(sandbox_id).network_version, node.count()["network"]) == (1, 0)


def test_one_that_is_paused_is_a_conflict(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    actions.pause_sandbox(actor=OPERATOR, sandbox_id=sandbox_id)

    assert put(alice, sandbox_id).status_code == 409
    assert row(sandbox_id).network_version == 1


def test_one_that_the_node_lost_is_not_found(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.lose(sandbox_id)

    assert put(alice, sandbox_id).status_code == 404
    assert row(sandbox_id).end_reason == "lost"


@pytest.mark.parametrize("away", ["node", "egress"])
def test_what_can_not_be_told_now_is_told_later(node: NodeDouble, base: Template, alice: Caller, away: str) -> None:
    sandbox_id = alice.create()["sandboxID"]
    if away == "node":
        node.fail("network", "hang_up", "hang_up")
    else:
        node.refuse("network", 503, "egress_unavailable")

    answer = put(alice, sandbox_id, denyOut=[EVERYWHERE])

    assert (answer.status_code, int(answer["Retry-After"]) >= 1) == (503, True)
    assert document(node, sandbox_id)["version"] == 1
    assert (row(sandbox_id).network_version, row(sandbox_id).network_acked) == (2, 1)
    node.refusals.clear()
    tasks.tell_networks()
    assert (document(node, sandbox_id)["version"], document(node, sandbox_id)["layers"][0]["mode"]) == (2, "deny")
    assert row(sandbox_id).network_acked == 2
    calls = node.count()["network"]
    tasks.tell_networks()
    assert node.count()["network"] == calls


def test_it_stays_over_a_pause(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(network={"denyOut": ["1.2.3.4"]})["sandboxID"]
    before = document(node, sandbox_id)

    assert alice.call("POST", f"/sandboxes/{sandbox_id}/pause", {}).status_code == 204
    assert alice.call("POST", f"/v2/sandboxes/{sandbox_id}/connect", {"timeout": 60}).status_code == 201

    assert document(node, sandbox_id) == before
    assert shown(alice, sandbox_id)["network"]["denyOut"] == ["1.2.3.4"]
