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


def history(node: NodeDouble, sandbox_id: str, *ages_s: float) -> int:
    """Give a sandbox samples of some ages, with half a core used between any two; return the time now in seconds."""
    now = clock.epoch_ms() // 1000 * 1000
    node.guests[sandbox_id].samples = [
        {
            "at": now - int(age * 1000),
            "cpu_usec": int((max(ages_s) - age) * 500_000),
            "memory_bytes": 1000 + number,
            "memory_cache_bytes": 10,
            "cpu_milli": 1000,
            "memory_mib": 512,
            "disk_mib": 1024,
            "disk_used_bytes": 4096,
        }
        for number, age in enumerate(ages_s)
    ]
    return now // 1000


def test_it_reads_the_history_oldest_first(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    now = history(node, sandbox_id, 20, 15, 10, 5)

    samples = alice.call("GET", f"/sandboxes/{sandbox_id}/metrics").json()

    assert [sample["memUsed"] for sample in samples] == [1000, 1001, 1002, 1003]
    assert [sample["timestampUnix"] for sample in samples] == [now - 20, now - 15, now - 10, now - 5]
    assert [sample["cpuUsedPct"] for sample in samples[1:]] == [50.0, 50.0, 50.0]
    assert node.count()["metrics"] == 0


def test_the_first_of_a_window_is_measured_against_the_one_before(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    sandbox_id = alice.create()["sandboxID"]
    now = history(node, sandbox_id, 20, 15, 10, 5)

    samples = alice.call("GET", f"/sandboxes/{sandbox_id}/metrics?start={now - 15}&end={now - 10}").json()

    assert [(sample["memUsed"], sample["cpuUsedPct"]) for sample in samples] == [(1001, 50.0), (1002, 50.0)]


def test_all_of_the_last_second_belongs_to_the_window(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    now = history(node, sandbox_id, 20, 9.5)

    assert len(alice.call("GET", f"/sandboxes/{sandbox_id}/metrics?start={now - 10}&end={now - 10}").json()) == 1


def test_a_paused_one_keeps_its_history(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    history(node, sandbox_id, 20, 15)
    alice.call("POST", f"/sandboxes/{sandbox_id}/pause")

    assert len(alice.call("GET", f"/sandboxes/{sandbox_id}/metrics").json()) == 2
    assert set(alice.call("GET", f"/sandboxes/metrics?sandbox_ids={sandbox_id}").json()["sandboxes"]) == {sandbox_id}


def test_a_window_before_the_create_has_none(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    now = history(node, sandbox_id, 20, 15)

    assert alice.call("GET", f"/sandboxes/{sandbox_id}/metrics?start={now - 900}&end={now - 600}").json() == []


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
