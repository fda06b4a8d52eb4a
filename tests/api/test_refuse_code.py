"""Code over REST that is not run, not run again, or not to its end: the reason is said, and nothing is left."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from audit.models import Event, RiskPolicy, RiskSuppression
from corekit import clock
from sandboxes import executionrows, executions
from sandboxes.models import Execution, Sandbox
from sandboxes.states import SandboxState
from tenants import actions as tenant_actions
from tests.api.coderuns import CHILD, HOSTILE, KEY, PURE, codes, nothing_is_left, run
from tests.api.gateway_double import NEVER, STARTED, error
from tests.api.rest import Rest, problem
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import at_once, used

if TYPE_CHECKING:
    from tests.api.gateway_double import GatewayDouble
    from tests.api.rest import Operator
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("gateway")]


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


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([STARTED, NEVER], "The sandbox ended before the command did."),
        ([STARTED, error("unavailable")], "The sandbox did not run the command: it is unavailable"),
        ([STARTED, error("\0")], "The sandbox did not run the command: it is \N{REPLACEMENT CHARACTER}"),
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
