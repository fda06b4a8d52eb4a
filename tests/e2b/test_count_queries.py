"""What each call costs the database. A change here is a decision, not an accident."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


def cost(who: Caller, method: str, path: str, body: Any = None) -> tuple[int, int]:
    """Return the statements of a call beside BEGIN, COMMIT and savepoints, and its transactions."""
    who.call(method, path, body)
    with CaptureQueriesContext(connection) as captured:
        assert who.call(method, path, body).status_code < 300
    statements = [query["sql"].split()[0].upper() for query in captured.captured_queries]
    work = [word for word in statements if word not in {"BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"}]
    return len(work), statements.count("BEGIN")


def test_create(node: NodeDouble, base: Template, alice: Caller) -> None:
    node.calls.clear()

    # The key; template, quota and limits; the tenant with its default network; permit, counters, reservation, row,
    # event; the tenant's network, its ceiling, bundles, and what nobody may reach; row, reservation.
    assert cost(alice, "POST", "/v2/sandboxes", {"templateID": "base"}) == (17, 2)
    assert [path for _, path, _ in node.calls if path == "/v1/sandboxes"] == ["/v1/sandboxes"] * 2


@pytest.mark.parametrize("path", ["/v2/sandboxes", "/sandboxes"])
@pytest.mark.parametrize("count", [1, 8])
def test_list(node: NodeDouble, base: Template, alice: Caller, path: str, count: int) -> None:
    for _ in range(count):
        alice.create(metadata={"a": "b"})

    # The key, the page, and how many run.
    assert cost(alice, "GET", path) == (3, 0)


def test_detail(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert cost(alice, "GET", f"/sandboxes/{sandbox_id}") == (2, 0)


def test_connect(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert cost(alice, "POST", f"/v2/sandboxes/{sandbox_id}/connect", {"timeout": 60}) == (5, 1)


def test_connect_to_a_paused_one(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    path = f"/v2/sandboxes/{sandbox_id}/connect"

    alice.call("POST", f"/sandboxes/{sandbox_id}/pause")
    with CaptureQueriesContext(connection) as captured:
        assert alice.call("POST", path, {"timeout": 60}).status_code == 201
    # The key, the row, the longest lifetime; row, reservation, counters, event; row.
    assert _work(captured) == 8


def test_pause(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    with CaptureQueriesContext(connection) as captured:
        assert alice.call("POST", f"/sandboxes/{sandbox_id}/pause").status_code == 204
    # The key, the row; row, event; row, reservation, counters.
    assert _work(captured) == 7


def _work(captured: CaptureQueriesContext) -> int:
    statements = [query["sql"].split()[0].upper() for query in captured.captured_queries]
    return len([word for word in statements if word not in {"BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"}])


def test_timeout(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert cost(alice, "POST", f"/sandboxes/{sandbox_id}/timeout", {"timeout": 60}) == (5, 1)


@pytest.mark.parametrize("count", [1, 5])
def test_metrics_of_many(node: NodeDouble, base: Template, alice: Caller, count: int) -> None:
    ids = ",".join(alice.create()["sandboxID"] for _ in range(count))

    assert cost(alice, "GET", f"/sandboxes/metrics?sandbox_ids={ids}") == (2, 0)


def test_metrics(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert cost(alice, "GET", f"/sandboxes/{sandbox_id}/metrics") == (2, 0)
