"""Where a scoped token is for a host's secret, the host itself is reached by the broker, or seen, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from corekit.netrules.decide import judge
from corekit.netrules.hosts import canonical_text
from corekit.netrules.policy import Policy
from sandboxes import tasks
from sandboxes.models import Sandbox
from tenants.broker import services
from tenants.models import TenantNetwork
from tenants.secrets import actions as secret_actions
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)

OPENAI = "api.openai.com"


@pytest.fixture(autouse=True)
def open_to_all(alice: Caller, base: Template) -> None:
    """Acme may reach the whole internet, and has a key for OpenAI."""
    TenantNetwork.everywhere().update_or_create(tenant=alice.tenant, defaults={"public_internet": True})
    secret_actions.create_secret(actor=alice.actor, tenant=alice.tenant, name="key", value="sk-alices-own-0001")


def token(who: Caller, sandbox_id: str, **wish: Any) -> None:
    asked = {"secret": "key", "allowed_apis": ["openai/chat/completions"]} | wish
    answer = who.call("POST", f"/api/v1/sandboxes/{sandbox_id}/tokens", asked)
    assert answer.status_code == 201, answer.content


def reaches(node: NodeDouble, sandbox_id: str, host: str, port: int = 443) -> bool:
    """Say what egress would say to a connection."""
    policy = Policy.parse(node.guests[sandbox_id].spec["network"]["document"])
    return judge(policy, canonical_text(host), port).allowed


def version(sandbox_id: str) -> tuple[int, int]:
    row = Sandbox.everywhere().get(pk=sandbox_id)
    return row.network_version, row.network_acked


def test_a_token_closes_the_way_past_the_broker(node: NodeDouble, alice: Caller) -> None:
    sandbox_id, other = alice.create()["sandboxID"], alice.create()["sandboxID"]
    assert reaches(node, sandbox_id, OPENAI)

    token(alice, sandbox_id)

    assert not reaches(node, sandbox_id, OPENAI)
    assert not reaches(node, sandbox_id, OPENAI, 8443)
    assert reaches(node, sandbox_id, "api.example.com")
    assert reaches(node, other, OPENAI)
    assert version(sandbox_id) == (2, 2)


def test_no_list_of_its_own_opens_it(node: NodeDouble, alice: Caller) -> None:
    sandbox_id = alice.create(network={"allowOut": [OPENAI], "denyOut": ["0.0.0.0/0"]})["sandboxID"]

    token(alice, sandbox_id)

    assert not reaches(node, sandbox_id, OPENAI)


def test_it_stays_closed_however_the_token_ended(node: NodeDouble, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    token(alice, sandbox_id)

    alice.call("DELETE", f"/api/v1/sandboxes/{sandbox_id}/tokens")
    alice.call("PUT", f"/sandboxes/{sandbox_id}/network", {})

    assert not reaches(node, sandbox_id, OPENAI)


def test_more_tokens_change_nothing_more(node: NodeDouble, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    for _ in range(3):
        token(alice, sandbox_id)

    assert version(sandbox_id) == (2, 2)


def test_where_its_requests_are_changed_it_is_open(node: NodeDouble, alice: Caller) -> None:
    rules = {OPENAI: [{"transform": {"headers": {"Authorization": "Bearer ${e2b.secrets.key}"}}}]}
    sandbox_id = alice.create(network={"rules": rules})["sandboxID"]

    token(alice, sandbox_id)
    assert reaches(node, sandbox_id, OPENAI)

    alice.call("PUT", f"/sandboxes/{sandbox_id}/network", {})
    assert not reaches(node, sandbox_id, OPENAI)


def test_it_is_the_host_that_the_service_has_now(node: NodeDouble, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    service = services.service_for(OPERATOR, "openai")
    wanted = services.Description(base_url="https://models.acme.example", kind="openai")
    services.replace(actor=OPERATOR, service=service, version=service.version, wanted=wanted)

    token(alice, sandbox_id)

    assert not reaches(node, sandbox_id, "models.acme.example")
    assert reaches(node, sandbox_id, OPENAI)


def test_a_node_that_is_away_is_told_later(node: NodeDouble, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.refuse("network", 503, "egress_unavailable")

    token(alice, sandbox_id)
    assert version(sandbox_id) == (2, 1)

    node.refusals.clear()
    tasks.tell_networks()
    assert version(sandbox_id) == (2, 2)
    assert not reaches(node, sandbox_id, OPENAI)


def test_a_sandbox_without_a_network_is_left_as_it_is(node: NodeDouble, alice: Caller) -> None:
    made = alice.call("POST", "/api/v1/sandboxes", {"network": "isolated"}).json()["id"]

    token(alice, made)

    assert node.guests[made].spec["network"] is None
    assert version(made) == (1, 1)
