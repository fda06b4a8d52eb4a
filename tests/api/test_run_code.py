"""Code over REST: judged, run at the tier that it needs in a sandbox of its own, and answered with what came of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from sandboxes import executionrows
from sandboxes.models import Execution, Sandbox
from tenants import actions as tenant_actions
from tests.api.coderuns import CHILD, PURE, nothing_is_left, run
from tests.api.gateway_double import STARTED, ended, error, wrote
from tests.api.rest import Rest
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.api.gateway_double import GatewayDouble
    from tests.api.rest import Operator
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("gateway")]


def test_code_runs_in_a_sandbox_of_its_own_and_its_output_comes_back(
    rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble
) -> None:
    seen: dict[str, Any] = {}
    gateway.meanwhile = lambda: seen.update(sandbox=node.running()[0])

    made = run(rest, timeout_s=7, env={"TOKEN": "very-secret"})

    assert (made["state"], made["exit_code"], made["stdout"], made["stderr"]) == ("completed", 0, "45\n", "")
    assert (made["truncated"], made["reason"], made["timeout_s"], made["language"]) == (False, "", 7, "python")
    assert made["duration_ms"] >= 0
    assert (made["tenant"], made["created_by"]) == (alice.tenant.pk.hex, alice.key.pk)
    guest = seen["sandbox"]
    assert made["sandbox_id"] == guest.id
    assert (guest.spec["tier"], guest.spec["env"], guest.spec["ttl_ms"]) == (
        "process",
        {"TOKEN": "very-secret"},
        22_000,
    )
    assert (guest.spec["ingress"]["public"], guest.spec["on_timeout"]) == (False, "kill")
    [call] = gateway.calls
    assert call.command == ["python3", "-c", PURE]
    assert call.headers["E2b-Sandbox-Id"] == guest.id
    assert call.headers["X-Access-Token"].startswith(f"gh_{alice.key.pk}_")
    assert call.headers["Connect-Timeout-Ms"] == "7000"
    sandbox = Sandbox.everywhere().get()
    assert (sandbox.state, sandbox.end_reason, sandbox.metadata) == ("ended", "killed", {"execution": made["id"]})
    nothing_is_left(alice, node)


def test_the_risk_stands_beside_what_came_of_it(rest: Rest) -> None:
    made = run(rest, CHILD)

    risk = made["risk"]
    assert (made["tier"], made["floor"], made["requested_tier"]) == ("container", "container", None)
    assert made["floor_reason"].startswith("The code demands container (L2): ")
    assert (risk["tier"], risk["seed_v1"]) == ("L2", {"score": 30, "tier": "L2"})
    assert risk["score"] > 0
    assert risk["ruleset"].startswith("gatehouse-v1:")
    assert risk["unassessable"] is None
    assert {"rule", "weight", "tier", "message", "span"} <= set(risk["findings"][0])


def test_what_happened_is_in_the_audit_and_the_code_is_not(rest: Rest, alice: Caller) -> None:
    made = run(rest, "print('very-' 'private')", env={"TOKEN": "very-secret"})

    started, finished = Event.objects.filter(object_type="execution", object_id=made["id"]).order_by("at", "id")
    assert (started.code, started.actor_id, started.outcome) == ("execution.started", alice.key.pk, "ok")
    assert started.args_hash
    assert (started.details["tier"], started.details["language"]) == ("process", "python")
    assert (finished.code, finished.details["state"], finished.details["exit_code"]) == (
        *("execution.ended", "completed"),
        0,
    )
    assert finished.details["sandbox"] == made["sandbox_id"]
    kept = [*Event.objects.values(), *Execution.everywhere().values(), *Sandbox.everywhere().values()]
    assert "very-secret" not in str(kept)
    assert "'private'" not in str(kept)


def test_bash_runs_in_bash(rest: Rest, gateway: GatewayDouble) -> None:
    made = run(rest, "echo 45", language="bash")

    assert made["language"] == "bash"
    assert gateway.calls[0].command == ["bash", "-c", "echo 45"]


def test_every_character_of_the_code_arrives(rest: Rest, gateway: GatewayDouble) -> None:
    code = "  \n# grün \U0001f600\r\nprint(1)\n\n"
    run(rest, code)
    assert gateway.calls[0].command[2] == code


def test_what_a_database_refuses_is_in_no_row(rest: Rest) -> None:
    made = run(rest, "print(open('/etc/\\0os-\\ud800release').read())")

    assert made["state"] == "completed"
    assert "\x00" not in str(Execution.everywhere().values())
    assert str(Execution.everywhere().values()).encode()


def test_code_that_needs_nothing_runs_at_the_weakest_tier_of_the_host(rest: Rest, node: NodeDouble) -> None:
    made = run(rest)
    assert (made["floor"], made["tier"], made["template"]) == ("language", "process", "base-process")
    assert made["floor_reason"].endswith("The weakest tier of this host is process (L1).")

    node.tiers = ["container"]
    made = run(rest)
    assert (made["floor"], made["tier"], made["template"]) == ("language", "container", "base")


def test_a_stronger_tier_may_be_asked_for_by_name_or_level(rest: Rest) -> None:
    for asked in ("container", "L2"):
        made = run(rest, tier=asked)
        assert (made["tier"], made["requested_tier"], made["floor"]) == ("container", "container", "language")
        assert made["floor_reason"] == "The tier container (L2) was asked for."


def test_a_request_below_the_floor_is_raised_and_the_answer_says_why(rest: Rest) -> None:
    made = run(rest, CHILD, tier="L1")

    assert (made["requested_tier"], made["floor"], made["tier"]) == ("process", "container", "container")
    assert made["floor_reason"].startswith("Asked for process (L1) and raised. The code demands container (L2): ")


def test_the_tenants_minimum_raises_it(rest: Rest, alice: Caller) -> None:
    tenant_actions.set_limit_range(actor=OPERATOR, tenant=alice.tenant, min_tier="container")

    made = run(rest, tier="process")

    assert (made["tier"], made["floor"], made["template"]) == ("container", "language", "base")
    assert made["floor_reason"] == "Asked for process (L1) and raised. The tenant demands at least container (L2)."


def test_the_templates_minimum_raises_it(rest: Rest) -> None:
    made = run(rest, template="base", tier="process")

    assert (made["tier"], made["template"]) == ("container", "base")
    assert made["floor_reason"] == "Asked for process (L1) and raised. The template demands at least container (L2)."


def test_an_exit_code_is_a_result(rest: Rest, gateway: GatewayDouble) -> None:
    gateway.script = [STARTED, wrote("stderr", b"Traceback \xff\n"), ended(3)]

    made = run(rest)

    assert (made["state"], made["exit_code"], made["stderr"]) == (
        "completed",
        3,
        "Traceback \N{REPLACEMENT CHARACTER}\n",
    )


def test_at_its_time_limit_there_is_what_there_is(
    rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble
) -> None:
    gateway.script = [STARTED, wrote("stdout", b"half"), error("deadline_exceeded")]

    made = run(rest, timeout_s=1)

    assert (made["state"], made["stdout"], made["exit_code"]) == ("timed_out", "half", None)
    nothing_is_left(alice, node)


def test_output_is_bounded_and_says_so(rest: Rest, gateway: GatewayDouble) -> None:
    block = b"x" * 600_000
    gateway.script = [STARTED, wrote("stdout", block), wrote("stdout", block), wrote("stderr", b"end"), ended()]

    made = run(rest)

    assert (len(made["stdout"]), made["stderr"], made["truncated"]) == (1024 * 1024, "end", True)


def test_what_the_gateway_refuses_failed(rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble) -> None:
    gateway.status = 503

    made = run(rest)

    assert made["state"] == "failed"
    assert made["reason"].startswith("The gateway refused the command (503)")
    nothing_is_left(alice, node)


def test_executions_are_listed_newest_first_without_their_output(rest: Rest, mallorys_rest: Rest) -> None:
    first, second = run(rest), run(rest, CHILD)

    listed = rest.get("executions")["items"]
    assert [one["id"] for one in listed] == [second["id"], first["id"]]
    assert "stdout" not in listed[0]
    assert rest.get("executions?state=failed")["items"] == []
    assert rest.get(f"executions/{first['id']}") == first
    assert mallorys_rest.get("executions")["items"] == []


def test_output_is_for_those_who_may_use_sandboxes(rest: Rest, vera: Caller, olga: Operator) -> None:
    made = run(rest)

    for reader in (Rest(vera.secret), olga):
        shown = reader.get(f"executions/{made['id']}")
        assert (shown["stdout"], shown["stderr"], shown["exit_code"]) == (None, None, 0)


def test_output_is_forgotten_after_a_day(rest: Rest) -> None:
    made = run(rest)
    assert executionrows.forget_output() == 0

    Execution.everywhere().update(output_until=clock.now() - timedelta(seconds=1))
    assert executionrows.forget_output() == 1
    shown = rest.get(f"executions/{made['id']}")
    assert (shown["state"], shown["stdout"], shown["exit_code"]) == ("completed", None, 0)
    assert Execution.everywhere().get().stdout == ""
