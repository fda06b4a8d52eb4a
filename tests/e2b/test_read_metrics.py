"""GET /sandboxes/{id}/metrics and GET /sandboxes/metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from corekit import clock
from sandboxes.models import Sandbox

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def test_it_reads_the_current_sample(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    Sandbox.everywhere().update(started_at=clock.from_ms(clock.epoch_ms() - 15_000))

    (sample,) = alice.call("GET", f"/sandboxes/{sandbox_id}/metrics").json()

    assert abs(sample["timestampUnix"] - clock.epoch_ms() // 1000) <= 30
    assert sample.pop("timestamp").endswith("Z")
    assert 3.0 < sample.pop("cpuUsedPct") < 10.1
    sample.pop("timestampUnix")
    assert sample == {
        "cpuCount": 1,
        "memUsed": 3_145_728,
        "memTotal": 512 * 1024 * 1024,
        "memCache": 1_048_576,
        "diskUsed": 4096,
        "diskTotal": 1024 * 1024 * 1024,
    }


@pytest.mark.parametrize(
    ("start", "end", "count"), [(-100, 100, 1), (-200, -100, 0), (100, 200, 0), (None, None, 1), (-100, None, 1)]
)
def test_it_keeps_to_the_window(
    node: NodeDouble, base: Template, alice: Caller, start: int | None, end: int | None, count: int
) -> None:
    sandbox_id = alice.create()["sandboxID"]
    now = clock.epoch_ms() // 1000
    window = {"start": start, "end": end}
    query = "&".join(f"{name}={now + offset}" for name, offset in window.items() if offset is not None)

    assert len(alice.call("GET", f"/sandboxes/{sandbox_id}/metrics?{query}").json()) == count


def test_a_sandbox_that_ended_a_moment_ago_has_no_sample(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    node.end(sandbox_id, "expired")

    assert alice.call("GET", f"/sandboxes/{sandbox_id}/metrics").json() == []


def test_it_reads_several_and_leaves_out_what_is_unknown(node: NodeDouble, base: Template, alice: Caller) -> None:
    first, second = alice.create()["sandboxID"], alice.create()["sandboxID"]

    answer = alice.call("GET", f"/sandboxes/metrics?sandbox_ids={first},{second},iunknown,{first}")

    assert set(answer.json()["sandboxes"]) == {first, second}
    assert answer.json()["sandboxes"][first]["memUsed"] == 3_145_728


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/sandboxes/metrics", "sandbox_ids"),
        ("/sandboxes/metrics?sandbox_ids=,", "sandbox_ids"),
        ("/sandboxes/metrics?sandbox_ids=" + ",".join(f"i{n}" for n in range(101)), "sandbox_ids"),
        ("/sandboxes/i1/metrics?start=x", "start"),
        ("/sandboxes/i1/metrics?end=-1", "end"),
        ("/sandboxes/i1/metrics?start=10&end=9", "end"),
    ],
)
def test_it_rejects_a_bad_query_naming_the_field(node: NodeDouble, alice: Caller, path: str, field: str) -> None:
    answer = alice.call("GET", path)

    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_an_unknown_sandbox_is_404(node: NodeDouble, alice: Caller) -> None:
    assert alice.call("GET", "/sandboxes/iunknown/metrics").status_code == 404
