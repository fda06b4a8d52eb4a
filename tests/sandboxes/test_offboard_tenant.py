"""Erase a tenant: all of it goes, nothing of anybody else, a crash loses nothing, the node has the last word."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from audit.models import Event, Operation, RiskLevel, RiskPolicy, Verdict
from corekit import clock
from corekit.errors import Forbidden, InvalidInput, NotFound
from sandboxes import actions, offboarding, tasks
from sandboxes.models import Execution, Sandbox, Template
from sandboxes.node_client import local_node
from tenants.authentication import authenticate
from tenants.models import Membership, Tenant, TenantOwned, User
from tenants.secrets import actions as secret_actions
from tenants.states import TenantState
from tests import factories, people
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)

ERASED = {
    "executions": 1,
    "sandboxes": 3,
    "api_keys": 2,
    "members": 2,
    "accounts": 2,
    "templates": 1,
    "secrets": 1,
    "secret_values": 2,
    "vault_keys": 1,
    "quotas": 1,
    "limit_ranges": 1,
    "reservations": 0,
    "tenants": 1,
}


@pytest.fixture
def acmes(node: NodeDouble, base: Template, alice: Caller, bob: Caller) -> list[str]:
    """Let Acme have a running, a paused and an ended sandbox, an execution, a template, a secret with two values.

    Return the sandboxes' ids.
    """
    made = [str(alice.create(metadata={"owner": "Alice"})["sandboxID"]) for _ in range(3)]
    actions.pause_sandbox(actor=alice.actor, sandbox_id=made[1])
    actions.kill_sandbox(actor=alice.actor, sandbox_id=made[2])
    Template.objects.create(tenant=alice.tenant, name="private", build_id="b-2")
    execution = Execution(tenant=alice.tenant, tier="process", floor="process", timeout_s=30, until=clock.now())
    execution.save(force_insert=True)
    secret = factories.secret(alice.tenant, "openai-key", "sk-first")
    secret_actions.add_version(actor=OPERATOR, secret=secret, value="sk-second")
    return made


def begin(tenant: Tenant) -> Operation:
    return offboarding.offboard_tenant(actor=OPERATOR, tenant=tenant, confirm=tenant.slug)


def work(operation: Operation) -> bool:
    return offboarding.work(local_node(), operation, budget_s=60)


def left_of(tenant: Tenant) -> dict[str, int]:
    """Return how many rows of each kind still belong to a tenant, whatever kinds there are."""
    models: list[Any] = [model for model in apps.get_models() if issubclass(model, TenantOwned)]
    found = {model.__name__: model.everywhere().filter(tenant_id=tenant.pk).count() for model in models}
    found |= {"Template": Template.objects.filter(tenant_id=tenant.pk).count()}
    return {name: count for name, count in found.items() if count}


def test_everything_of_the_tenant_goes_and_is_counted(
    node: NodeDouble, acmes: list[str], alice: Caller, mallory: Caller
) -> None:
    theirs = mallory.create()["sandboxID"]

    operation = begin(alice.tenant)
    assert work(operation)

    operation.refresh_from_db()
    kept = Event.objects.filter(tenant_id=alice.tenant.pk).count()
    assert (operation.state, operation.error) == ("succeeded", "")
    assert operation.result == {"slug": "acme", "erased": ERASED, "kept": {"audit_events": kept}}
    assert left_of(alice.tenant) == {}
    assert not Tenant.objects.filter(pk=alice.tenant.pk).exists()
    assert not User.objects.filter(username__in=["alice", "bob"]).exists()
    assert [guest.id for guest in node.guests.values() if guest.state != "ended"] == [theirs]
    assert mallory.call("GET", f"/sandboxes/{theirs}").status_code == 200


def test_the_audit_stays_and_tells_the_story(acmes: list[str], alice: Caller) -> None:
    before = set(Event.objects.filter(tenant_id=alice.tenant.pk).values_list("pk", flat=True))

    work(begin(alice.tenant))

    rows = Event.objects.filter(tenant_id=alice.tenant.pk)
    assert before <= set(rows.values_list("pk", flat=True))
    last = rows.get(code="tenant.offboarded")
    assert sorted(str(last.details["erased"]).split(", ")) == sorted(
        f"{count} {name}" for name, count in ERASED.items()
    )
    assert rows.get(code="tenant.offboarding").details["slug"] == "acme"
    killed = rows.filter(code="sandbox.killed", actor_id="system").values_list("object_id", flat=True)
    assert sorted(killed) == sorted(acmes[:2])
    ended = rows.filter(code="sandbox.ended").values_list("object_id", flat=True)
    assert sorted(ended) == sorted(acmes)


def test_what_was_judged_of_the_tenant_goes_and_of_others_stays(
    acmes: list[str], alice: Caller, mallory: Caller
) -> None:
    operation = begin(alice.tenant)
    for whose in (alice, mallory):
        tenant_id = whose.tenant.pk
        RiskPolicy.objects.create(tenant_id=tenant_id, pause_at=80)
        RiskLevel.objects.create(kind="tenant", subject_id=tenant_id.hex, tenant_id=tenant_id, score=50)
        Verdict.objects.create(tenant_id=tenant_id, event_id=tenant_id.hex, action="flag", score=80, threshold=75)
    assert work(operation)
    judged: tuple[Any, ...] = (RiskPolicy, RiskLevel, Verdict)
    kept = [list(model.objects.values_list("tenant_id", flat=True)) for model in judged]
    assert kept == [[mallory.tenant.pk]] * 3


def test_without_the_slug_nothing_happens(acmes: list[str], alice: Caller) -> None:
    for confirm in ("", "ACME", "acme ", "evil-corp"):
        with pytest.raises(InvalidInput, match="write its slug") as refused:
            offboarding.offboard_tenant(actor=OPERATOR, tenant=alice.tenant, confirm=confirm)
        assert refused.value.field == "confirm"
    assert not Operation.objects.exists()
    assert authenticate(alice.secret, origin=None, request_id=None)


def test_nobody_but_an_operator_may(acmes: list[str], alice: Caller) -> None:
    with pytest.raises(Forbidden):
        offboarding.offboard_tenant(actor=alice.actor, tenant=alice.tenant, confirm="acme")
    assert not Operation.objects.exists()


def test_from_the_first_moment_no_key_opens_anything_and_nothing_brings_it_back(
    acmes: list[str], alice: Caller
) -> None:
    begin(alice.tenant)

    assert alice.call("GET", "/v2/sandboxes").status_code == 403
    from tenants import actions as tenant_actions

    with pytest.raises(Exception, match="cannot become"):
        tenant_actions.set_tenant_state(
            actor=OPERATOR, tenant=Tenant.objects.get(pk=alice.tenant.pk), state=TenantState.ACTIVE
        )


def test_again_is_the_same_operation(acmes: list[str], alice: Caller) -> None:
    assert begin(alice.tenant).pk == begin(alice.tenant).pk
    assert Event.objects.filter(code="tenant.offboarding").count() == 1


def test_people_of_other_tenants_and_operators_keep_their_accounts(
    acmes: list[str], alice: Caller, mallory: Caller
) -> None:
    both = people.join(alice.tenant, "Bridget", "viewer").user
    Membership(tenant=mallory.tenant, user=both, role="viewer").save()
    staff = people.join(alice.tenant, "Stefan", "viewer").user
    User.objects.filter(pk=staff.pk).update(is_staff=True)

    work(begin(alice.tenant))

    assert User.objects.filter(username__in=["bridget", "stefan", "mallory"]).count() == 3
    assert Operation.objects.get().result["erased"] == ERASED | {"members": 4}


def test_while_the_node_is_away_it_waits_and_keeps_the_rows(node: NodeDouble, acmes: list[str], alice: Caller) -> None:
    node.die()
    operation = begin(alice.tenant)

    assert not work(operation)

    operation.refresh_from_db()
    assert operation.state == "running"
    assert "not reachable" in operation.error
    assert Sandbox.everywhere().count() == 3

    node.listen()
    assert work(operation)
    assert Operation.objects.get().result["erased"] == ERASED


@pytest.mark.parametrize("fault", ["refuse", "hang_up", "act_then_hang_up", "act_then_500"])
def test_a_stop_that_goes_wrong_is_done_again(node: NodeDouble, acmes: list[str], alice: Caller, fault: str) -> None:
    node.fail("stop", fault)
    operation = begin(alice.tenant)
    for _ in range(3):
        if work(operation):
            break

    operation.refresh_from_db()
    assert (operation.state, operation.result["erased"]) == ("succeeded", ERASED)
    assert not node.running()


def test_a_sandbox_that_only_the_node_knows_is_stopped_too(node: NodeDouble, acmes: list[str], alice: Caller) -> None:
    stray = alice.create()["sandboxID"]
    Sandbox.everywhere().filter(pk=stray).delete()

    assert work(begin(alice.tenant))

    assert node.guests.get(stray) is None or node.guests[stray].state == "ended"


def test_a_create_under_way_is_waited_for(node: NodeDouble, acmes: list[str], alice: Caller) -> None:
    Sandbox.everywhere().filter(pk=acmes[0]).update(state="starting")
    operation = begin(alice.tenant)

    assert not work(operation)
    operation.refresh_from_db()
    assert operation.error.startswith("A sandbox is still starting")

    Sandbox.everywhere().filter(pk=acmes[0]).update(state="running")
    assert work(operation)


STEPS = (
    "revoke_keys",
    "end_sandboxes",
    "close_the_door",
    "ask_the_node",
    "collect_events",
    "delete_rows",
    "delete_tenant",
)


class Died(BaseException):
    """The process ends here, without a chance to tidy up."""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_step_loses_neither_work_nor_counts(
    acmes: list[str], alice: Caller, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool
) -> None:
    real = getattr(offboarding._Erasure, step)

    def dies(self: Any) -> None:
        if after:
            real(self)
        raise Died

    operation = begin(alice.tenant)
    monkeypatch.setattr(offboarding._Erasure, step, dies)
    with pytest.raises(Died):
        work(operation)
    monkeypatch.undo()

    if not (after and step == "delete_tenant"):
        assert not work(operation), "the dead one's lease still counts"
        Operation.objects.filter(state="running").update(leased_until="2026-01-01T00:00:00Z")
        assert work(operation)
    operation.refresh_from_db()
    assert (operation.state, operation.result["erased"]) == ("succeeded", ERASED)
    assert left_of(alice.tenant) == {}


def test_a_run_out_of_time_is_gone_on_with(acmes: list[str], alice: Caller) -> None:
    operation = begin(alice.tenant)
    assert not offboarding.work(local_node(), operation, budget_s=-1)
    operation.refresh_from_db()
    assert (operation.state, operation.error) == ("running", "")

    tasks.erase_tenants()

    operation.refresh_from_db()
    assert operation.result["erased"] == ERASED


def test_rows_go_in_batches(acmes: list[str], alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offboarding, "BATCH", 1)
    assert work(begin(alice.tenant))
    assert Operation.objects.get().result["erased"] == ERASED


def test_a_create_that_was_let_in_before_begins_no_more(acmes: list[str], base: Template, alice: Caller) -> None:
    actor = alice.actor
    work(begin(alice.tenant))

    with pytest.raises(NotFound):
        actions.create_sandbox(actor=actor, template="base", timeout_s=60)
    assert not Sandbox.everywhere().exists()


def test_the_command_erases_and_reports(acmes: list[str], alice: Caller) -> None:
    with pytest.raises(CommandError, match="write its slug"):
        call_command("tenant", "offboard", "acme")
    assert Tenant.objects.filter(slug="acme", state="active").exists()

    said = io.StringIO()
    call_command("tenant", "offboard", "acme", "--confirm", "acme", stdout=said)

    assert "erased the tenant acme" in said.getvalue()
    lines = [line.split() for line in said.getvalue().splitlines()]
    assert ["sandboxes", "3"] in lines
    assert ["audit_events", "(kept)"] in [line[:2] for line in lines]
    with pytest.raises(CommandError, match="There is no tenant acme"):
        call_command("tenant", "offboard", "acme", "--confirm", "acme")


def test_the_command_says_what_it_waits_for(node: NodeDouble, acmes: list[str], alice: Caller) -> None:
    node.die()
    with pytest.raises(CommandError, match=r"not erased yet, and the worker goes on.*not reachable"):
        call_command("tenant", "offboard", "acme", "--confirm", "acme")
