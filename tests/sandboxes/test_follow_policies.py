"""Sandboxes that run follow the policies, ceilings and tenants that they are under."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from corekit.netrules.policy import Policy
from sandboxes import actions, networks, tasks
from sandboxes.models import Sandbox
from sandboxes.networks import Wish
from tenants import actions as tenant_actions
from tenants import hooks
from tenants.networks import actions as network_actions
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def models(base: Template, alice: Caller) -> Any:
    """Return Acme's policy of one host."""
    body = {"egress": ["api.openai.com:443"], "ingress": [3000]}
    return network_actions.create_policy(actor=OPERATOR, tenant=alice.tenant, name="models", body=body).policy


def start(whose: Caller, policy: str | None = None) -> str:
    made = actions.create_sandbox(actor=whose.actor, template="base", timeout_s=60, network=Wish(policy=policy))
    return made.sandbox.pk


def document(node: NodeDouble, sandbox_id: str) -> dict[str, Any]:
    told: dict[str, Any] = node.guests[sandbox_id].spec["network"]["document"]
    Policy.parse(told)
    return told


def own(node: NodeDouble, sandbox_id: str) -> list[str]:
    """Return the entries of a sandbox's own layer."""
    entries: list[str] = document(node, sandbox_id)["layers"][0]["egress"]
    return entries


def row(sandbox_id: str) -> Sandbox:
    return Sandbox.everywhere().get(pk=sandbox_id)


def test_a_policy_that_changes_reaches_what_runs_under_it(
    node: NodeDouble, models: Any, alice: Caller, mallory: Caller
) -> None:
    under, beside, theirs = start(alice, "models"), start(alice), start(mallory)

    network_actions.replace_policy(
        actor=OPERATOR, policy=models, version=1, body={"egress": ["api.anthropic.com:443"], "ingress": []}
    )
    tasks.tell_networks()

    assert own(node, under) == ["api.anthropic.com:443"]
    assert (document(node, under)["version"], row(under).network_acked) == (2, 2)
    assert (node.guests[under].spec["ingress"]["ports"], row(under).ingress_ports) == ([], [])
    assert [document(node, one)["version"] for one in (beside, theirs)] == [1, 1]
    assert node.count()["network"] == 1


def test_what_runs_under_a_deleted_policy_keeps_it(node: NodeDouble, models: Any, alice: Caller) -> None:
    under = start(alice, "models")

    network_actions.delete_policy(actor=OPERATOR, policy=models)
    networks.follow_policies(alice.tenant.pk.hex, None)
    tasks.tell_networks()

    assert own(node, under) == ["api.openai.com:443"]


def test_what_operators_deny_is_denied_to_all_that_runs(
    node: NodeDouble, base: Template, alice: Caller, mallory: Caller
) -> None:
    running = [start(alice), start(mallory)]

    network_actions.set_platform_deny(actor=OPERATOR, entries=["evil.example:443"])
    tasks.tell_networks()

    assert [document(node, one)["deny"] for one in running] == [["evil.example:443"]] * 2


def test_a_tenants_ceiling_is_raised_while_sandboxes_run(node: NodeDouble, base: Template, alice: Caller) -> None:
    running = start(alice)

    network_actions.set_network(actor=OPERATOR, tenant=alice.tenant, wanted={"public_internet": True})
    tasks.tell_networks()

    assert document(node, running)["layers"][1]["mode"] == "allow"


def test_a_suspended_tenants_sandboxes_reach_nothing_until_it_is_active(
    node: NodeDouble, base: Template, alice: Caller, mallory: Caller
) -> None:
    mine, theirs = start(alice), start(mallory)
    before = document(node, mine)

    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=alice.tenant, state="suspended")
    tasks.tell_networks()
    assert (document(node, mine)["layers"], document(node, theirs)["version"]) == ([], 1)

    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=alice.tenant, state="active")
    tasks.tell_networks()
    assert document(node, mine) == before | {"version": 3}


def test_an_active_tenants_sandboxes_reach_again_what_nobody_lived_to_tell(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = start(alice)
    before = document(node, mine)
    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=alice.tenant, state="suspended")
    tasks.tell_networks()

    monkeypatch.setattr(hooks, "on_tenant_state_changed", [])
    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=alice.tenant, state="active")
    tasks.tell_networks()
    assert document(node, mine)["layers"] == []

    tasks.collect_events()
    tasks.tell_networks()
    assert document(node, mine)["layers"] == before["layers"]


def test_one_that_starts_meanwhile_is_told_when_it_runs(node: NodeDouble, models: Any, alice: Caller) -> None:
    def while_it_starts(_: object) -> None:
        network_actions.replace_policy(
            actor=OPERATOR, policy=models, version=1, body={"egress": ["api.anthropic.com:443"]}
        )
        tasks.tell_networks()

    node.before_start = while_it_starts
    running = start(alice, "models")
    node.before_start = None
    assert own(node, running) == ["api.openai.com:443"]

    tasks.tell_networks()

    assert own(node, running) == ["api.anthropic.com:443"]


def test_a_paused_one_is_told_too(node: NodeDouble, models: Any, alice: Caller) -> None:
    under = start(alice, "models")
    actions.pause_sandbox(actor=OPERATOR, sandbox_id=under)

    network_actions.replace_policy(actor=OPERATOR, policy=models, version=1, body={"egress": []})
    tasks.tell_networks()

    assert own(node, under) == []


def test_one_that_can_not_be_told_holds_up_none_of_the_others(node: NodeDouble, models: Any, alice: Caller) -> None:
    first, second = sorted(start(alice, "models") for _ in range(2))
    node.lose(first)
    network_actions.replace_policy(actor=OPERATOR, policy=models, version=1, body={"egress": []})

    tasks.tell_networks()

    assert (own(node, second), row(second).network_acked, row(first).network_acked) == ([], 2, 1)


def test_what_has_no_network_or_has_ended_is_left_alone(node: NodeDouble, base: Template, alice: Caller) -> None:
    without, ended = start(alice, "isolated"), start(alice)
    actions.kill_sandbox(actor=OPERATOR, sandbox_id=ended)

    for hook in hooks.on_network_changed:
        hook(None, None)
    tasks.tell_networks()

    assert [row(one).network_version for one in (without, ended)] == [1, 1]
    assert node.count()["network"] == 0


def test_a_run_without_news_asks_nobody(node: NodeDouble, base: Template, alice: Caller) -> None:
    start(alice)
    node.calls.clear()

    tasks.tell_networks()

    assert node.calls == []
