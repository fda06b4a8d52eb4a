"""Many creates at once: the quota holds to the last one, whatever dies in the middle."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from sandboxes import launch, node_client, reconcile
from sandboxes.models import Sandbox
from tenants import actions as tenant_actions
from tenants import quota
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import assert_counters_equal_reality, at_once, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)

CREATES, ALLOWED = 100, 10


class WebDiedError(BaseException):
    """Stands for the end of the process: nothing in the product catches it."""


@pytest.fixture(autouse=True)
def _quota(alice: Caller) -> None:
    tenant_actions.set_quota(
        actor=OPERATOR,
        tenant=alice.tenant,
        max_sandboxes=ALLOWED,
        max_cpu_milli=10**6,
        max_memory_mib=10**6,
        max_disk_mib=10**6,
        max_request_cpu_milli=10**6,
        max_request_memory_mib=10**6,
    )


def create_all(caller: Caller) -> list[Any]:
    """Ask for all sandboxes at once; None stands for a caller whose web process died."""

    def create(_: int) -> Any:
        try:
            return caller.call("POST", "/v2/sandboxes", {"templateID": "base"})
        except WebDiedError:
            return None

    return at_once(CREATES, create)


def settle(monkeypatch: pytest.MonkeyPatch, passes: int = 2) -> None:
    """Reconcile as the worker does, after everybody's patience is over."""
    monkeypatch.setattr(reconcile, "PATIENCE_S", -1)
    for _ in range(passes):
        reconcile.reconcile(node_client.local_node())


def test_exactly_as_many_as_allowed_run_and_the_others_are_told_not_to_retry(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    answers = create_all(alice)

    by_status: dict[int, list[Any]] = {}
    for answer in answers:
        assert answer is not None
        by_status.setdefault(answer.status_code, []).append(answer)
    assert {status: len(found) for status, found in by_status.items()} == {201: ALLOWED, 429: CREATES - ALLOWED}
    for refusal in by_status[429]:
        body = refusal.json()
        assert (body["code"], body["error_code"], refusal["Should-Retry"]) == (429, "quota_exceeded", "false")
        assert (body["details"]["limit"], body["details"]["allowed"], body["details"]["used"]) == (
            "sandboxes",
            ALLOWED,
            ALLOWED,
        )
    assert len(node.running()) == ALLOWED == used(alice.tenant)
    assert len({answer.json()["sandboxID"] for answer in by_status[201]}) == ALLOWED
    assert_counters_equal_reality(alice.tenant, node)
    assert Event.objects.filter(code="quota.refused", outcome="refused").count() == CREATES - ALLOWED
    assert Event.objects.filter(code="sandbox.created").count() == ALLOWED


def test_the_counters_are_right_after_the_node_died_half_way(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.fail("start", "", "", "", "act_then_die")

    answers = create_all(alice)
    statuses = Counter(answer.status_code for answer in answers if answer is not None)
    assert 0 < statuses[201] < ALLOWED
    assert set(statuses) <= {201, 429, 503}

    node.listen()
    settle(monkeypatch)
    assert_counters_equal_reality(alice.tenant, node)
    assert len(node.running()) == statuses[201]
    assert alice.call("POST", "/v2/sandboxes", {"templateID": "base"}).status_code == 201


@pytest.mark.parametrize("seam", ["before the node", "after the node", "in the last transaction"])
def test_the_counters_are_right_after_web_died_half_way(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch, seam: str
) -> None:
    numbers, lock = iter(range(CREATES)), threading.Lock()

    def dying(real: Any, *, before: bool) -> Any:
        def step(*args: Any) -> Any:
            with lock:
                dies = next(numbers) % 2 == 0
            if dies and before:
                raise WebDiedError
            result = real(*args)
            if dies:
                raise WebDiedError
            return result

        return step

    with monkeypatch.context() as patched:
        if seam == "in the last transaction":
            patched.setattr(quota, "commit", dying(quota.commit, before=False))
        else:
            step = dying(launch.start_at_node, before=seam == "before the node")
            patched.setattr(launch, "start_at_node", step)
        answers = create_all(alice)

    answered = [answer.json()["sandboxID"] for answer in answers if answer is not None and answer.status_code == 201]
    deaths = sum(answer is None for answer in answers)
    assert deaths > 0
    assert len(answered) + deaths == ALLOWED
    assert used(alice.tenant) == ALLOWED

    settle(monkeypatch)
    assert {guest.id for guest in node.running()} == set(answered)
    assert_counters_equal_reality(alice.tenant, node)
    assert Sandbox.everywhere().filter(end_reason="start_failed").count() == deaths


def test_creates_and_kills_at_once_leave_the_counters_right(node: NodeDouble, base: Template, alice: Caller) -> None:
    def come_and_go(_: int) -> Any:
        answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})
        if answer.status_code == 201:
            killed = alice.call("DELETE", f"/sandboxes/{answer.json()['sandboxID']}")
            assert killed.status_code == 204
        return answer.status_code

    assert set(at_once(60, come_and_go, threads=20)) <= {201, 429}
    assert used(alice.tenant) == 0
    assert_counters_equal_reality(alice.tenant, node)


def test_one_sandbox_killed_by_many_ends_once(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    sandbox_id = alice.create()["sandboxID"]

    statuses = at_once(10, lambda _: alice.call("DELETE", f"/sandboxes/{sandbox_id}").status_code)

    assert set(statuses) <= {204, 404}
    assert 204 in statuses
    assert used(alice.tenant) == 1
    assert_counters_equal_reality(alice.tenant, node)
