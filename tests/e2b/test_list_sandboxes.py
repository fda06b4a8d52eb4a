"""GET /v2/sandboxes and GET /sandboxes."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from corekit import clock
from sandboxes.models import Sandbox

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def ids_of(answer: Any) -> list[str]:
    """Return the ids that a list answered."""
    assert answer.status_code == 200, answer.content
    return [entry["sandboxID"] for entry in answer.json()]


def spread(caller: Caller, count: int, **body: object) -> list[str]:
    """Create sandboxes that started a minute apart; return their ids, newest first."""
    made = [caller.create(**body)["sandboxID"] for _ in range(count)]
    for age, sandbox_id in enumerate(reversed(made)):
        Sandbox.everywhere().filter(pk=sandbox_id).update(started_at=NOON - timedelta(minutes=age))
    return made[::-1]


NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def test_it_lists(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(metadata={"a": "b"}, timeout=60)["sandboxID"]

    answer = alice.call("GET", "/v2/sandboxes")

    guest = node.guests[sandbox_id]
    assert answer.json() == [
        {
            "templateID": base.pk,
            "alias": "base",
            "sandboxID": sandbox_id,
            "clientID": "gatehouse",
            "envdVersion": "0.6.13",
            "startedAt": clock.to_rfc3339(guest.started_at),
            "endAt": clock.to_rfc3339(guest.started_at + 60_000),
            "cpuCount": 1,
            "memoryMB": 512,
            "diskSizeMB": 1024,
            "metadata": {"a": "b"},
            "state": "running",
        }
    ]
    assert not answer.has_header("X-Next-Token")


def test_without_sandboxes_the_list_is_empty(node: NodeDouble, alice: Caller) -> None:
    assert alice.call("GET", "/v2/sandboxes").json() == []


def test_ended_ones_are_not_listed(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    alice.call("DELETE", f"/sandboxes/{sandbox_id}")

    assert ids_of(alice.call("GET", "/v2/sandboxes")) == []
    assert ids_of(alice.call("GET", "/sandboxes")) == []


def test_the_newest_come_first_a_page_at_a_time(node: NodeDouble, base: Template, alice: Caller) -> None:
    newest_first = spread(alice, 5)
    pages, token = [], ""
    for _ in range(3):
        answer = alice.call("GET", f"/v2/sandboxes?limit=2&nextToken={token}")
        pages.append(ids_of(answer))
        token = answer.headers.get("X-Next-Token", "")

    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert token == ""


def test_the_oldest_come_first_when_asked(node: NodeDouble, base: Template, alice: Caller) -> None:
    newest_first = spread(alice, 3)
    first = alice.call("GET", "/v2/sandboxes?limit=2&order=asc")
    second = alice.call("GET", f"/v2/sandboxes?limit=2&order=asc&nextToken={first['X-Next-Token']}")

    assert ids_of(first) + ids_of(second) == newest_first[::-1]


def test_pages_are_stable_when_several_started_at_the_same_moment(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    made = {alice.create()["sandboxID"] for _ in range(4)}
    Sandbox.everywhere().update(started_at=NOON)
    seen: list[str] = []
    token = ""
    for _ in made:
        answer = alice.call("GET", f"/v2/sandboxes?limit=1&nextToken={token}")
        seen += ids_of(answer)
        token = answer.headers.get("X-Next-Token", "")

    assert seen == sorted(made)


def test_a_full_last_page_has_no_next_one(node: NodeDouble, base: Template, alice: Caller) -> None:
    spread(alice, 2)

    assert not alice.call("GET", "/v2/sandboxes?limit=2").has_header("X-Next-Token")


def test_version_1_lists_in_one_answer(node: NodeDouble, base: Template, alice: Caller) -> None:
    assert ids_of(alice.call("GET", "/sandboxes")) == spread(alice, 0)
    newest_first = spread(alice, 3)
    assert ids_of(alice.call("GET", "/sandboxes")) == newest_first


@pytest.mark.parametrize(
    ("metadata", "query", "found"),
    [
        # As the clients send it: names and values are encoded twice inside the query.
        ({"a b": "c&d"}, "metadata=a%252520b%3Dc%252526d", 1),
        ({"team": "red"}, "metadata=team%3Dred", 1),
        ({"team": "red"}, "metadata=team%3Dblue", 0),
        ({"team": "red"}, "metadata=team%3DRED", 0),
        ({"team": "red"}, "metadata=team%3Dre", 0),
        ({"team": "red"}, "metadata=tea%3Dmred", 0),
        ({"team": "red", "n": "1"}, "metadata=team%3Dred%26n%3D1", 1),
        ({"team": "red", "n": "2"}, "metadata=team%3Dred%26n%3D1", 0),
        ({"0": "x"}, "metadata=0%3Dx", 1),
        ({'q"uote': "\\"}, "metadata=q%252522uote%3D%25255C", 1),
        ({"empty": ""}, "metadata=empty%3D", 1),
        ({"ü": "ä"}, "metadata=%2525C3%2525BC%3D%2525C3%2525A4", 1),
        ({}, "metadata=", 1),
    ],
)
def test_it_filters_by_metadata(
    node: NodeDouble, base: Template, alice: Caller, metadata: dict[str, str], query: str, found: int
) -> None:
    sandbox_id = alice.create(metadata=metadata)["sandboxID"]

    assert ids_of(alice.call("GET", f"/v2/sandboxes?{query}")) == [sandbox_id] * found
    assert ids_of(alice.call("GET", f"/sandboxes?{query}")) == [sandbox_id] * found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=running", 1),
        ("state=running,paused", 1),
        ("state=paused,running", 1),
        ("state=", 1),
        ("state=paused", 0),
        ("template=base", 1),
        ("template=other", 0),
        ("startedAfter=2026-01-02T12:00:00Z", 1),
        ("startedAfter=2026-01-02T12:00:00.000001Z", 0),
        ("startedAfter=2026-01-02T13:00:00%2B01:00", 1),
        ("startedAfter=2026-01-02T13:00:00+01:00", 1),
        ("startedAfter=2026-01-02T12:00:00", 1),
    ],
)
def test_it_filters_by_state_template_and_start(
    node: NodeDouble, base: Template, alice: Caller, query: str, found: int
) -> None:
    (sandbox_id,) = spread(alice, 1)

    assert ids_of(alice.call("GET", f"/v2/sandboxes?{query}")) == [sandbox_id] * found


def test_a_template_filter_takes_the_id_too(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert ids_of(alice.call("GET", f"/v2/sandboxes?template={base.pk}")) == [sandbox_id]


def token(text: str) -> str:
    """Return a page token as the list would write it."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=1e3", "limit"),
        ("limit=" + "9" * 400, "limit"),
        ("limit=²", "limit"),
        ("state=dead", "state"),
        ("order=up", "order"),
        ("startedAfter=yesterday", "startedAfter"),
        ("startedAfter=0001-01-01T00:00:00%2B14:00", "startedAfter"),
        ("template=base:latest", "template"),
        ("template=a%00b", "template"),
        ("nextToken=xyz", "nextToken"),
        ("nextToken=%00", "nextToken"),
        ("nextToken=é", "nextToken"),
        ("nextToken=" + token("2026-01-02T12:00:00+00:00"), "nextToken"),
        ("nextToken=" + token("2026-01-02T12:00:00+00:00__i1__asc"), "nextToken"),
        ("order=asc&nextToken=" + token("2026-01-02T12:00:00+00:00__i1"), "nextToken"),
        ("nextToken=" + token("0001-01-01T00:00:00+14:00__i1"), "nextToken"),
        ("nextToken=" + token("2026-01-02T12:00:00+00:00__../x"), "nextToken"),
        ("metadata=" + "%26".join(f"k{n}%3Dv" for n in range(65)), "metadata"),
    ],
)
def test_it_rejects_a_bad_query_naming_the_field(node: NodeDouble, alice: Caller, query: str, field: str) -> None:
    answer = alice.call("GET", f"/v2/sandboxes?{query}")

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, 400, field)


def test_a_viewer_may_list(node: NodeDouble, base: Template, alice: Caller, vera: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]

    assert ids_of(vera.call("GET", "/v2/sandboxes")) == [sandbox_id]


def test_a_template_may_be_named_with_its_tenant(node: NodeDouble, base: Template, alice: Caller) -> None:
    type(base).objects.create(tenant=alice.tenant, name="private", build_id="b-2")
    mine = alice.create(templateID="private")["sandboxID"]
    alice.create()

    def listed(template: str) -> list[str]:
        return [one["sandboxID"] for one in alice.call("GET", f"/v2/sandboxes?template={template}").json()]

    assert listed("acme/private") == listed("acme%2Fprivate") == listed("private") == [mine]
    assert listed("acme/base") == listed("evil-corp/private") == listed("acme/") == []
