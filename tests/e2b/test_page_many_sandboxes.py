"""A page of a list costs the same at ten thousand sandboxes: the database walks an index and sorts nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from corekit import clock, ids
from sandboxes.models import Node, Sandbox, metadata_digests

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db
MANY = 10_000


@pytest.fixture
def many(base: Template, alice: Caller) -> list[Sandbox]:
    """Ten thousand live sandboxes of Acme, one in ten paused, and as many that ended; newest first."""
    node = Node.objects.create(id="n-1")
    now = clock.now()

    def row(number: int) -> Sandbox:
        ended = number % 2 == 1
        return Sandbox(
            id=ids.new_sandbox_id(),
            tenant=alice.tenant,
            template=base,
            template_name="base",
            build_id="b-1",
            node=node,
            state="ended" if ended else "paused" if number % 20 == 0 else "running",
            tier="container",
            profile="workstation",
            cpu_milli=1000,
            memory_mib=512,
            disk_mib=1024,
            pids=256,
            metadata={"n": str(number)},
            metadata_terms=metadata_digests({"n": str(number)}),
            timeout_s=300,
            created_by="k",
            started_at=now - timedelta(seconds=number),
            end_at=now,
            ended_at=now if ended else None,
            paused_at=now if number % 20 == 0 else None,
        )

    rows = [row(number) for number in range(2 * MANY)]
    Sandbox.everywhere().bulk_create(rows, batch_size=500)
    if connection.vendor == "postgresql":
        # As PostgreSQL does by itself, at a time of its own choosing.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE sandboxes_sandbox")
    return [one for one in rows if one.ended_at is None]


QUERIES = [
    "",
    "?limit=1",
    "?order=asc",
    "?state=running",
    "?state=paused",
    "?state=running,paused&limit=50",
    "?template=base",
    "?startedAfter=2020-01-01T00:00:00Z",
]


def test_no_page_sorts_or_scans(many: list[Sandbox], alice: Caller) -> None:
    for query in QUERIES:
        plan = _plan(_page_of(alice, query))

        # With a range of times the database may take the index of all rows, which is in the same order.
        assert _uses_an_index_in_order(plan, query), (query, plan)
        assert "TEMP B-TREE" not in plan, query
        assert "Sort" not in plan, query


def _uses_an_index_in_order(plan: str, query: str) -> bool:
    if connection.vendor == "postgresql":
        # Which of the indexes is cheapest its statistics say.
        return "using sandboxes_sandbox_" in plan and "Seq Scan" not in plan
    return "sandboxes_sandbox_live" in plan or ("sandboxes_sandbox_page" in plan and "After" in query)


def test_pages_are_whole_and_in_order_and_each_begins_in_the_index(many: list[Sandbox], alice: Caller) -> None:
    seen: list[str] = []
    query = "?limit=100"
    while True:
        answer = alice.call("GET", f"/v2/sandboxes{query}")
        seen += [one["sandboxID"] for one in answer.json()]
        if "X-Next-Token" not in answer:
            break
        query = f"?limit=100&nextToken={answer['X-Next-Token']}"
        if len(seen) == MANY // 2:
            assert "started_at<?" in _plan(_page_of(alice, query)) or connection.vendor != "sqlite"
    assert seen == [one.pk for one in many]
    found = alice.call("GET", f"/v2/sandboxes?metadata=n%3D{2 * MANY - 2}")
    assert [one["sandboxID"] for one in found.json()] == [many[-1].pk]


def _page_of(who: Caller, query: str) -> str:
    """Return the statement that fetches a page."""
    with CaptureQueriesContext(connection) as captured:
        assert who.call("GET", f"/v2/sandboxes{query}").status_code == 200
    return next(one["sql"] for one in captured.captured_queries if "metadata_terms" in one["sql"])


def _plan(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + sql)
        rows: list[Any] = cursor.fetchall()
    return "\n".join(str(row) for row in rows)
