"""Scoped tokens end with their sandbox, however it ends, and when its risk asks for it; nothing brings them back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from audit.models import Event, RiskPolicy, Verdict
from audit.thresholds import override_verdict
from corekit import clock, ids
from sandboxes import actions, events, node_client, offboarding, reconcile, tasks, tokens, verdicts
from sandboxes.errors import NodeUnavailable
from sandboxes.models import Sandbox
from tenants.broker import redeeming
from tenants.broker.redeeming import Asked, Caller, Outcome, Refused
from tenants.broker.wishes import Wish
from tenants.tokenmodels import ScopedToken, TokenUse
from tests import factories
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller as Person
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "sk-proj-T3st-Key-of-Acme-9fQ2xWv7"
COMPLETION = Asked("openai", "POST", ("v1", "chat", "completions"), "application/json", 20)


@pytest.fixture
def box(node: NodeDouble, base: Template, alice: Person) -> str:
    """Return Alice's sandbox; Acme has a key for OpenAI."""
    factories.secret(alice.tenant, "openai-key", KEY)
    return str(alice.create()["sandboxID"])


def issue(alice: Person, box: str, max_uses: int | None = None) -> str:
    """Return the text of a new token for the sandbox."""
    wish = Wish(secret="openai-key", allowed_apis=["openai/chat/completions"], max_uses=max_uses)
    return tokens.issue_token(actor=alice.actor, sandbox_id=box, wish=wish).text


def use(text: str, box: str) -> str:
    """Use a token from inside the sandbox; return the secret that the broker gets, or why it gets none."""
    try:
        return redeeming.redeem(text, Caller(box, 1), COMPLETION).secret.reveal().decode()
    except Refused as refused:
        return str(refused.reason)


def voided() -> list[Event]:
    return list(Event.objects.filter(code="token.voided"))


def test_a_kill_ends_them(node: NodeDouble, box: str, alice: Person) -> None:
    texts = [issue(alice, box), issue(alice, box, 1)]
    actions.kill_sandbox(actor=alice.actor, sandbox_id=box)
    assert [use(text, box) for text in texts] == ["sandbox_ended"] * 2
    (event,) = voided()
    assert (event.tenant_id, event.object_id, event.sandbox_id) == (alice.tenant.pk, box, box)
    assert (event.reason, event.details, event.actor_id) == ("sandbox_ended", {"count": 2}, "system")


def test_a_kill_ends_them_before_the_node_has_heard_of_it(node: NodeDouble, box: str, alice: Person) -> None:
    text = issue(alice, box)
    node.die()
    with pytest.raises(NodeUnavailable):
        actions.kill_sandbox(actor=alice.actor, sandbox_id=box)
    node.listen()
    assert Sandbox.everywhere().get(pk=box).state == "ending"
    assert use(text, box) == "sandbox_ended"


def test_the_end_of_its_time_ends_them(node: NodeDouble, box: str, alice: Person) -> None:
    text = issue(alice, box)
    node.expire(box)
    events.collect(node_client.local_node())
    assert (Sandbox.everywhere().get(pk=box).state, use(text, box)) == ("ended", "sandbox_ended")


@pytest.mark.parametrize("fate", ["out_of_memory", "crashed", "lost", "rebooted"])
def test_a_crash_that_the_reconciler_finds_ends_them(node: NodeDouble, box: str, alice: Person, fate: str) -> None:
    tasks.reconcile()
    text = issue(alice, box)
    if fate == "lost":
        node.lose(box)
    elif fate == "rebooted":
        node.reboot()
    else:
        node.end(box, fate)

    reconcile.reconcile(node_client.local_node())

    assert (Sandbox.everywhere().get(pk=box).state, use(text, box)) == ("ended", "sandbox_ended")
    assert len(voided()) == 1


def test_a_pause_keeps_them(node: NodeDouble, box: str, alice: Person) -> None:
    text = issue(alice, box)
    actions.pause_sandbox(actor=alice.actor, sandbox_id=box)
    actions.resume_sandbox(actor=alice.actor, sandbox_id=box, timeout_s=60)
    assert use(text, box) == KEY


def test_a_sandbox_without_tokens_ends_without_a_word_of_them(node: NodeDouble, box: str, alice: Person) -> None:
    actions.kill_sandbox(actor=alice.actor, sandbox_id=box)
    assert voided() == []


def test_an_erased_tenant_leaves_no_token(node: NodeDouble, box: str, alice: Person) -> None:
    redeeming.redeem(issue(alice, box), Caller(box, 1), COMPLETION)
    offboarding.offboard_tenant(actor=OPERATOR, tenant=alice.tenant, confirm=alice.tenant.slug)
    for _ in range(10):
        offboarding.go_on(node_client.local_node(), budget_s=5)
    assert not ScopedToken.everywhere().exists()
    assert not TokenUse.objects.exists()


# --- risk


@pytest.fixture
def guarded(box: str, alice: Person) -> str:
    """Return Alice's sandbox; her tenant voids the tokens of what scores 80 or more."""
    RiskPolicy.objects.create(tenant_id=alice.tenant.pk, flag_at=None, void_at=80)
    return box


def act(node: NodeDouble, box: str, score: int) -> None:
    """Let somebody do something risky."""
    node.emit("command.start", node.guests[box], phase="intent", risk_score=score, risk_reasons=["sh.rule"])


def test_a_risky_act_voids_them_and_the_sandbox_runs_on(node: NodeDouble, guarded: str, alice: Person) -> None:
    text, other = issue(alice, guarded), str(alice.create()["sandboxID"])
    elsewhere = issue(alice, other)
    act(node, guarded, 79)
    tasks.collect_events()
    assert use(text, guarded) == KEY

    act(node, guarded, 80)
    tasks.collect_events()

    assert (use(text, guarded), use(elsewhere, other)) == ("voided", KEY)
    assert node.guests[guarded].state == "running"
    verdict = Verdict.objects.get()
    assert (verdict.action, verdict.state, verdict.note, verdict.decided_by) == ("void", "done", "", "system")
    done = Event.objects.get(code="risk.tokens_voided")
    assert (done.tenant_id, done.object_id, done.details["threshold"]) == (alice.tenant.pk, guarded, 80)
    (event,) = voided()
    assert (event.reason, event.details) == ("risk", {"count": 1})


def test_a_secret_that_comes_back_voids_them(node: NodeDouble, guarded: str, alice: Person) -> None:
    text = issue(alice, guarded)
    redeeming.settle(redeeming.redeem(text, Caller(guarded, 1), COMPLETION), Outcome(200, reflected=True))
    verdicts.carry_out()
    assert use(text, guarded) == "voided"


def test_a_token_that_is_used_elsewhere_voids_those_of_where_it_was_used(
    node: NodeDouble, guarded: str, alice: Person
) -> None:
    other = str(alice.create()["sandboxID"])
    text, others = issue(alice, guarded), issue(alice, other)
    assert use(text, other) == "other_sandbox"
    verdicts.carry_out()
    assert (use(others, other), use(text, guarded)) == ("voided", KEY)


def test_an_override_brings_none_back(node: NodeDouble, guarded: str, alice: Person) -> None:
    text = issue(alice, guarded)
    act(node, guarded, 90)
    tasks.collect_events()

    override_verdict(actor=OPERATOR, verdict_id=Verdict.objects.get().pk, note="a drill")
    verdicts.carry_out()

    assert use(text, guarded) == "voided"
    assert use(issue(alice, guarded), guarded) == KEY


def test_an_override_in_time_keeps_them(node: NodeDouble, guarded: str, alice: Person) -> None:
    text = issue(alice, guarded)
    act(node, guarded, 90)
    events.collect(node_client.local_node())
    override_verdict(actor=OPERATOR, verdict_id=Verdict.objects.get().pk, note="a drill")
    verdicts.carry_out()
    assert use(text, guarded) == KEY
    assert not Event.objects.filter(code="risk.tokens_voided").exists()


def test_without_tokens_there_is_nothing_to_do(node: NodeDouble, guarded: str) -> None:
    act(node, guarded, 90)
    tasks.collect_events()
    verdict = Verdict.objects.get()
    assert (verdict.state, verdict.note) == ("done", verdicts.NO_TOKENS)
    assert not Event.objects.filter(code="risk.tokens_voided").exists()


def test_a_worker_that_died_in_between_leaves_the_event_to_the_next(
    node: NodeDouble, guarded: str, alice: Person
) -> None:
    issue(alice, guarded)
    act(node, guarded, 90)
    events.collect(node_client.local_node())
    tokens.void_for_risk(Sandbox.everywhere().get(pk=guarded))
    verdicts.carry_out()
    assert Verdict.objects.get().note == ""
    assert Event.objects.filter(code="risk.tokens_voided").count() == 1


def test_what_was_said_of_an_earlier_incarnation_is_not_done_to_this_one(
    node: NodeDouble, guarded: str, alice: Person
) -> None:
    text = issue(alice, guarded)
    Verdict.objects.create(
        tenant_id=alice.tenant.pk,
        event_id=ids.new_event_id(),
        sandbox_id=guarded,
        generation=7,
        action="void",
        score=90,
        threshold=80,
    )
    verdicts.carry_out()
    assert (Verdict.objects.get().note, use(text, guarded)) == (verdicts.RESTARTED, KEY)


def test_the_worker_settles_the_uses_of_a_web_process_that_died(node: NodeDouble, box: str, alice: Person) -> None:
    assert use(issue(alice, box), box) == KEY
    TokenUse.objects.update(at=clock.now() - timedelta(seconds=redeeming.LONGEST_CALL_S + 1))
    tasks.sweep_reservations()
    assert not TokenUse.objects.exists()
    assert Event.objects.get(code="token.redeemed").reason == "interrupted"
