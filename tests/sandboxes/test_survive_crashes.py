"""Web may die anywhere in a create or a kill, and the node may misbehave: each sandbox ends in one true state."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from sandboxes import actions, endings, launch, node_client, reconcile
from sandboxes.models import Sandbox
from tenants import quota
from tests.sandboxes.fixtures import assert_counters_equal_reality, used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


class WebDiedError(BaseException):
    """Stands for the end of the process: nothing in the product catches it."""


def die(*_: Any, **__: Any) -> None:
    """End web here."""
    raise WebDiedError


@contextmanager
def web_dies_in(step: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End web at a step of the product."""
    with monkeypatch.context() as patched:
        patched.setattr(*step, die)
        with pytest.raises(WebDiedError):
            yield


def row() -> Sandbox:
    """Return the only sandbox."""
    return Sandbox.everywhere().get()


def create(caller: Caller) -> None:
    """Create through the action, as a view does."""
    actions.create_sandbox(actor=caller.actor, template="base", timeout_s=60)


def test_a_row_and_its_reservation_are_there_before_the_node_is_asked(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    seen: list[tuple[str, int, bool]] = []

    def look(spec: dict[str, Any]) -> None:
        found = Sandbox.everywhere().get(pk=spec["id"])
        created = Event.objects.filter(code="sandbox.created", object_id=spec["id"]).exists()
        seen.append((found.state, used(alice.tenant), created))

    node.before_start = look
    create(alice)

    assert seen == [("starting", 1, True)]


def test_web_dies_before_the_node_was_asked(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_dies_in((launch, "start_at_node"), monkeypatch):
        create(alice)
    assert (row().state, used(alice.tenant), len(node.running())) == ("starting", 1, 0)

    reconcile.reconcile(node_client.local_node())
    assert row().state == "starting"

    monkeypatch.setattr(reconcile, "PATIENCE_S", -1)
    assert reconcile.reconcile(node_client.local_node()).ended == 1
    assert (row().state, row().end_reason, used(alice.tenant)) == ("ended", "start_failed", 0)
    lost = Event.objects.get(code="sandbox.lost")
    assert (lost.object_id, lost.details["reason"], lost.tenant_id) == (row().pk, "start_failed", alice.tenant.pk)


@pytest.mark.parametrize("seam", [(launch, "write_running"), (quota, "commit")], ids=["before", "inside"])
def test_web_dies_after_the_node_started_it(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch, seam: tuple[Any, str]
) -> None:
    with web_dies_in(seam, monkeypatch):
        create(alice)
    assert (row().state, used(alice.tenant), len(node.running())) == ("starting", 1, 1)

    reconcile.reconcile(node_client.local_node())
    assert (row().state, len(node.running())) == ("starting", 1)

    monkeypatch.setattr(reconcile, "PATIENCE_S", -1)
    reconcile.reconcile(node_client.local_node())
    assert (row().state, row().end_reason, used(alice.tenant)) == ("ended", "start_failed", 0)
    assert_counters_equal_reality(alice.tenant, node)


def test_web_dies_while_it_kills(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = alice.create()["sandboxID"]
    with web_dies_in((endings, "finish_ending"), monkeypatch):
        actions.kill_sandbox(actor=alice.actor, sandbox_id=sandbox_id)
    assert (row().state, len(node.running())) == ("ending", 1)

    reconcile.reconcile(node_client.local_node())
    assert (row().state, row().end_reason, used(alice.tenant)) == ("ended", "killed", 0)
    assert_counters_equal_reality(alice.tenant, node)


def test_web_dies_after_the_node_killed_it(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_id = alice.create()["sandboxID"]
    with web_dies_in((endings, "end_row"), monkeypatch):
        actions.kill_sandbox(actor=alice.actor, sandbox_id=sandbox_id)

    reconcile.reconcile(node_client.local_node())
    assert (row().state, row().end_reason) == ("ended", "killed")
    assert_counters_equal_reality(alice.tenant, node)


@pytest.mark.parametrize("fault", ["act_then_hang_up", "act_then_500", "not_json"])
def test_when_the_node_acted_without_a_good_answer_nothing_is_left(
    node: NodeDouble, base: Template, alice: Caller, fault: str
) -> None:
    # A kept connection that breaks is tried again on a new one, which breaks too.
    node.fail("start", fault, fault)

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})

    assert answer.status_code in {500, 503}
    assert answer.json()["code"] == answer.status_code
    assert (row().state, row().end_reason) == ("ended", "start_failed")
    assert node.running() == []
    assert_counters_equal_reality(alice.tenant, node)


def test_when_the_node_is_too_slow_nothing_is_left(
    node: NodeDouble, base: Template, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_client, "START_TIMEOUT_S", 0.3)
    node.fail("start", "act_then_stall")

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})

    assert (answer.status_code, answer.json()["error_code"]) == (503, "node_silent")
    assert row().end_reason == "start_failed"
    assert_counters_equal_reality(alice.tenant, node)


def test_a_break_of_a_kept_connection_is_mended_unseen(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    node.fail("start", "act_then_hang_up")

    body = alice.create()

    assert node.count()["start"] == 3
    assert {guest.id for guest in node.running()} >= {body["sandboxID"]}
    assert_counters_equal_reality(alice.tenant, node)


def test_when_the_node_dies_after_it_acted_the_row_waits_for_it(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    node.fail("start", "act_then_die")

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})
    assert answer.status_code == 503
    assert (row().state, row().end_reason, used(alice.tenant)) == ("ending", "start_failed", 1)

    node.listen()
    reconcile.reconcile(node_client.local_node())
    assert (row().state, used(alice.tenant)) == ("ended", 0)
    assert_counters_equal_reality(alice.tenant, node)


def test_a_sandbox_killed_while_it_starts_does_not_run(node: NodeDouble, base: Template, alice: Caller) -> None:
    node.before_start = lambda spec: actions.kill_sandbox(actor=alice.actor, sandbox_id=spec["id"])

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})

    assert (answer.status_code, answer.json()["message"]) == (500, "The sandbox was ended while it started.")
    assert (row().state, row().end_reason) == ("ended", "killed")
    assert node.running() == []
    assert_counters_equal_reality(alice.tenant, node)
