"""Another tenant's sandbox answers like one that does not exist: same status, same bytes, nothing done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.ids import new_sandbox_id
from sandboxes.models import Sandbox

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db

ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/sandboxes/{}", None),
    ("DELETE", "/sandboxes/{}", None),
    ("GET", "/sandboxes/{}-gatehouse", None),
    ("DELETE", "/sandboxes/{}-gatehouse", None),
    ("POST", "/sandboxes/{}/connect", {"timeout": 60}),
    ("POST", "/v2/sandboxes/{}/connect", {"timeout": 60}),
    ("POST", "/sandboxes/{}/timeout", {"timeout": 60}),
    ("POST", "/sandboxes/{}/timeout", {"timeout": 0}),
    ("POST", "/sandboxes/{}/timeout", {"timeout": 10**9}),
    ("POST", "/sandboxes/{}/refreshes", {"duration": 60}),
    ("GET", "/sandboxes/{}/metrics", None),
    ("GET", "/sandboxes/metrics?sandbox_ids={}", None),
    ("POST", "/sandboxes/{}/pause", {}),
    ("POST", "/sandboxes/{}/resume", {}),
    ("POST", "/sandboxes/{}-gatehouse/pause", {}),
    ("POST", "/sandboxes/{}/fork", {}),
    ("POST", "/sandboxes/{}/snapshots", {}),
    ("PUT", "/sandboxes/{}/network", {}),
    ("GET", "/sandboxes/{}/logs", None),
    ("GET", "/v2/sandboxes/{}/logs", None),
    ("GET", "/nowhere/{}", None),
]


def seen(answer: Any, sandbox_id: str) -> tuple[int, bytes, dict[str, str]]:
    """Return what a caller can tell apart, with the id they sent themselves blanked out."""
    headers = {
        name: value for name, value in answer.items() if name.lower() not in {"x-request-id", "traceparent", "date"}
    }
    return answer.status_code, answer.content.replace(sandbox_id.encode(), b"<id>"), headers


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=[f"{m} {p} {b}" for m, p, b in ROUTES])
@pytest.mark.parametrize("state", ["starting", "running", "pausing", "paused", "resuming", "ending", "ended"])
def test_a_stranger_learns_nothing_and_changes_nothing(
    node: NodeDouble, base: Template, alice: Caller, mallory: Caller, method: str, path: str, body: Any, state: str
) -> None:
    theirs, unknown = alice.create(metadata={"a": "b"})["sandboxID"], new_sandbox_id()
    Sandbox.everywhere().update(state=state, ended_at=Sandbox.everywhere().get().end_at if state == "ended" else None)
    before = (Sandbox.everywhere().values().get(), dict(node.count()), vars(node.guests[theirs]).copy())

    answer = mallory.call(method, path.format(theirs), body)

    assert seen(answer, theirs) == seen(mallory.call(method, path.format(unknown), body), unknown)
    assert before == (Sandbox.everywhere().values().get(), dict(node.count()), vars(node.guests[theirs]))


def test_asking_for_it_is_recorded_and_says_nothing_of_whether_it_exists(
    node: NodeDouble, base: Template, alice: Caller, mallory: Caller
) -> None:
    theirs, unknown = alice.create()["sandboxID"], new_sandbox_id()

    for sandbox_id in (theirs, f"{theirs}-gatehouse", unknown):
        mallory.call("POST", f"/sandboxes/{sandbox_id}/pause")

    rows = Event.objects.filter(code="sandbox.denied", tenant_id=mallory.tenant.pk).order_by("id")
    assert [row.object_id for row in rows] == [theirs, theirs, unknown]
    seen = {(row.actor_id, row.outcome, row.risk_score, *row.risk_reasons, *row.details) for row in rows}
    assert seen == {(mallory.key.pk, "refused", 60, "It asked for a sandbox that is not its tenant's.")}
    assert not Event.objects.filter(code="sandbox.denied", tenant_id=alice.tenant.pk).exists()


def test_asking_for_ones_own_that_ended_is_not(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create()["sandboxID"]
    alice.call("DELETE", f"/sandboxes/{sandbox_id}")

    for path in (sandbox_id, "no-such-id", "I1"):
        assert alice.call("GET", f"/sandboxes/{path}").status_code == 404

    assert not Event.objects.filter(code="sandbox.denied").exists()


def test_a_stranger_sees_no_sandbox_in_any_list(
    node: NodeDouble, base: Template, alice: Caller, mallory: Caller
) -> None:
    alice.create(metadata={"a": "b"})

    for path in ("/sandboxes", "/v2/sandboxes", "/v2/sandboxes?metadata=a%3Db", "/sandboxes?state=running"):
        assert mallory.call("GET", path).json() == []


def test_a_strangers_page_token_opens_nothing(node: NodeDouble, base: Template, alice: Caller, mallory: Caller) -> None:
    for _ in range(2):
        alice.create()
    token = alice.call("GET", "/v2/sandboxes?limit=1")["X-Next-Token"]

    assert mallory.call("GET", f"/v2/sandboxes?nextToken={token}").json() == []


def test_a_strangers_template_answers_like_an_unknown_one(
    node: NodeDouble, base: Template, alice: Caller, mallory: Caller
) -> None:
    type(base).objects.create(tenant=alice.tenant, name="private", build_id="b-2")

    theirs = mallory.call("POST", "/v2/sandboxes", {"templateID": "private"})
    qualified = mallory.call("POST", "/v2/sandboxes", {"templateID": "acme/private"})
    unknown = mallory.call("POST", "/v2/sandboxes", {"templateID": "unknown"})

    assert theirs.status_code == unknown.status_code == qualified.status_code == 404
    assert theirs.content.replace(b"private", b"unknown") == unknown.content
    assert qualified.json()["message"] == "template 'acme/private' not found"
    assert alice.create(templateID="private")["alias"] == "private"
    assert alice.create(templateID="acme/private")["alias"] == "private"
