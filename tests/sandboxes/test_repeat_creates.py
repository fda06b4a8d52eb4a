"""A create with an Idempotency-Key happens once, however often it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.models import Sandbox
from tests.sandboxes.fixtures import at_once, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


def create(who: Caller, key: str, **body: object) -> Any:
    """Create with a key and return the answer."""
    return who.call("POST", "/v2/sandboxes", {"templateID": "base"} | body, **{"Idempotency-Key": key})


def test_the_same_request_gets_the_first_result(node: NodeDouble, base: Template, alice: Caller) -> None:
    first, second = create(alice, "k-1"), create(alice, "k-1")

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert used(alice.tenant) == len(node.running()) == 1


def test_other_keys_and_other_tenants_are_other_requests(
    node: NodeDouble, base: Template, alice: Caller, mallory: Caller
) -> None:
    made = {create(who, key).json()["sandboxID"] for who, key in [(alice, "k-1"), (alice, "k-2"), (mallory, "k-1")]}

    assert len(made) == len(node.running()) == 3


def test_another_request_with_the_same_key_is_refused(node: NodeDouble, base: Template, alice: Caller) -> None:
    create(alice, "k-1")

    answer = create(alice, "k-1", timeout=60)

    assert (answer.status_code, answer.json()["error_code"]) == (409, "idempotency_request_mismatch")
    assert len(node.running()) == 1


def test_while_the_first_is_under_way_the_second_waits(node: NodeDouble, base: Template, alice: Caller) -> None:
    answers = []
    node.before_start = lambda _: answers.append(create(alice, "k-1"))

    assert create(alice, "k-1").status_code == 201
    assert [(answer.status_code, answer.json()["error_code"]) for answer in answers] == [
        (409, "idempotency_in_progress")
    ]


def test_after_a_failure_the_key_may_be_used_again(node: NodeDouble, base: Template, alice: Caller) -> None:
    node.fail("start", "refuse")
    assert create(alice, "k-1").status_code == 500

    assert create(alice, "k-1").status_code == 201
    assert sorted(Sandbox.everywhere().values_list("state", "idempotency_key")) == [
        ("ended", None),
        ("running", "k-1"),
    ]


def test_many_at_once_make_one(node: NodeDouble, base: Template, alice: Caller) -> None:
    answers = at_once(8, lambda _: create(alice, "k-1"), threads=8)

    made = {answer.json()["sandboxID"] for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert used(alice.tenant) == len(node.running()) == 1


@pytest.mark.parametrize("key", ["", "A", "a b", "x" * 256, "ä"])
def test_it_rejects_a_malformed_key(node: NodeDouble, base: Template, alice: Caller, key: str) -> None:
    answer = create(alice, key)

    assert (answer.status_code, answer.json()["field"]) == (400, "Idempotency-Key")
    assert node.running() == []
