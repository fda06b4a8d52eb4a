"""The control plane's calls as they travel, those too that only older or other clients make."""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.sdk.wire import Agent, Wire

UNKNOWN = "i" + "0" * 20
DETAIL = {
    "templateID": str,
    "sandboxID": str,
    "clientID": str,
    "startedAt": str,
    "endAt": str,
    "envdVersion": str,
    "cpuCount": int,
    "memoryMB": int,
    "diskSizeMB": int,
    "state": str,
}


@pytest.fixture
def create(wire: Wire) -> Iterator[Callable[..., Agent]]:
    """Return what makes sandboxes that are gone after the test."""
    made: list[Agent] = []

    def act(**body: Any) -> Agent:
        made.append(wire.create(**body))
        return made[-1]

    yield act
    for agent in made:
        agent.kill()


def seconds_left(wire: Wire, sandbox_id: str) -> float:
    """Return how long the sandbox may still live."""
    row = wire.api("GET", f"/sandboxes/{sandbox_id}").json()
    return datetime.fromisoformat(row["endAt"]).timestamp() - time.time()


def test_health_needs_no_key(wire: Wire) -> None:
    assert httpx.get(f"{wire.url}/health").status_code in (200, 204)


def test_created_has_what_every_sdk_reads(create: Callable[..., Agent]) -> None:
    created = create().created
    required = {"templateID", "sandboxID", "clientID", "envdVersion", "envdAccessToken"}
    assert all(isinstance(created[name], str) for name in required)
    assert created["alias"] == "base"
    assert (created.get("domain"), created.get("trafficAccessToken")) == (None, None)


@pytest.mark.parametrize("secure", [True, False, None])
def test_older_create_is_always_secured_and_lives_15_seconds(wire: Wire, *, secure: bool | None) -> None:
    body = {"templateID": "base"} | ({} if secure is None else {"secure": secure})
    answer = wire.api("POST", "/sandboxes", body)
    assert answer.status_code == 201
    created = answer.json()
    assert created["envdAccessToken"]
    assert 13 <= seconds_left(wire, created["sandboxID"]) <= 15
    wire.api("DELETE", f"/sandboxes/{created['sandboxID']}")


def test_detail_and_list_have_the_required_fields(wire: Wire, create: Callable[..., Agent]) -> None:
    mark = secrets.token_hex(8)
    agent = create(metadata={"mark": mark})
    detail = wire.api("GET", f"/sandboxes/{agent.id}").json()
    (listed,) = wire.api("GET", f"/v2/sandboxes?metadata=mark%3D{mark}").json()
    for row in (detail, listed):
        assert {name: type(row[name]) for name in DETAIL} == DETAIL
    assert detail["envdAccessToken"] == agent.created["envdAccessToken"]
    assert detail["lifecycle"] == {"autoResume": False, "onTimeout": "kill"}
    assert "envdAccessToken" not in listed


def test_older_list_shows_only_what_runs(wire: Wire, create: Callable[..., Agent]) -> None:
    mark = secrets.token_hex(8)
    running, paused = (create(metadata={"mark": mark}).id for _ in range(2))
    wire.api("POST", f"/sandboxes/{paused}/pause")
    assert [row["sandboxID"] for row in wire.api("GET", f"/sandboxes?metadata=mark%3D{mark}").json()] == [running]


def test_list_counts_what_runs(wire: Wire, create: Callable[..., Agent]) -> None:
    mark = secrets.token_hex(8)
    for _ in range(3):
        create(metadata={"mark": mark})
    answer = wire.api("GET", f"/v2/sandboxes?metadata=mark%3D{mark}&state=running&limit=2")
    assert (len(answer.json()), answer.headers["X-Total-Running"]) == (2, "3")
    rest = wire.api("GET", f"/v2/sandboxes?metadata=mark%3D{mark}&limit=2&nextToken={answer.headers['X-Next-Token']}")
    assert (len(rest.json()), rest.headers.get("X-Next-Token", "")) == (1, "")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "nextToken=x", "state=dead", "order=up"])
def test_impossible_lists_are_refused(wire: Wire, query: str) -> None:
    refused(wire.api("GET", f"/v2/sandboxes?{query}"), 400)


def refused(answer: httpx.Response, status: int) -> None:
    """Check that the answer is a refusal in the protocol's own shape."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, status), answer.text
    assert isinstance(body["message"], str)
    assert body["message"]


def test_connect_of_a_running_sandbox_is_200(wire: Wire, create: Callable[..., Agent]) -> None:
    agent = create()
    for path in (f"/sandboxes/{agent.id}/connect", f"/v2/sandboxes/{agent.id}/connect"):
        answer = wire.api("POST", path, {"timeout": 60})
        assert (answer.status_code, answer.json()["envdAccessToken"]) == (200, agent.created["envdAccessToken"])
    assert seconds_left(wire, agent.id) > 110


@pytest.mark.parametrize("version", ["", "/v2"])
def test_connect_of_a_paused_sandbox_is_201(wire: Wire, create: Callable[..., Agent], version: str) -> None:
    agent = create()
    assert wire.api("POST", f"/sandboxes/{agent.id}/pause", {}).status_code == 204
    refused(wire.api("POST", f"/sandboxes/{agent.id}/pause", {}), 409)
    answer = wire.api("POST", f"{version}/sandboxes/{agent.id}/connect", {"timeout": 60})
    assert (answer.status_code, answer.json()["sandboxID"]) == (201, agent.id)
    assert answer.json()["envdAccessToken"] == agent.created["envdAccessToken"]
    assert 58 <= seconds_left(wire, agent.id) <= 60


def test_older_resume(wire: Wire, create: Callable[..., Agent]) -> None:
    agent = create()
    refused(wire.api("POST", f"/sandboxes/{agent.id}/resume", {"timeout": 60}), 409)
    wire.api("POST", f"/sandboxes/{agent.id}/pause")
    answer = wire.api("POST", f"/sandboxes/{agent.id}/resume", {"timeout": 60})
    assert (answer.status_code, answer.json()["sandboxID"]) == (201, agent.id)
    assert agent.run("echo back")[0] == "back\n"


def test_refreshes_only_extend(wire: Wire, create: Callable[..., Agent]) -> None:
    agent = create(timeout=60)
    assert wire.api("POST", f"/sandboxes/{agent.id}/refreshes", {"duration": 10}).status_code == 204
    assert 55 <= seconds_left(wire, agent.id) <= 60
    assert wire.api("POST", f"/sandboxes/{agent.id}/refreshes", {"duration": 200}).status_code == 204
    assert 198 <= seconds_left(wire, agent.id) <= 200


def test_extend_only_never_shortens(wire: Wire, create: Callable[..., Agent]) -> None:
    agent = create(timeout=100)
    wish = {"timeout": 20, "extendOnly": True}
    assert wire.api("POST", f"/sandboxes/{agent.id}/timeout", wish).status_code == 204
    assert seconds_left(wire, agent.id) > 95


def test_the_older_form_of_an_id_is_understood(wire: Wire, create: Callable[..., Agent]) -> None:
    agent = create()
    assert wire.api("GET", f"/sandboxes/{agent.id}-00000000").json()["sandboxID"] == agent.id


def test_metrics_of_many(wire: Wire, create: Callable[..., Agent]) -> None:
    first, second = create(), create()
    deadline = time.monotonic() + 10
    found: dict[str, Any] = {}
    while set(found) != {first.id, second.id}:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
        answer = wire.api("GET", f"/sandboxes/metrics?sandbox_ids={first.id},{second.id},{UNKNOWN}")
        found = answer.json()["sandboxes"]
    assert set(found[first.id]) >= {"timestamp", "timestampUnix", "cpuCount", "cpuUsedPct", "memUsed", "memTotal"}


def test_logs_tell_what_happened_without_arguments(wire: Wire, create: Callable[..., Agent]) -> None:
    agent = create()
    agent.run("echo the-word-nobody-logs")
    deadline = time.monotonic() + 10
    while not (entries := wire.api("GET", f"/v2/sandboxes/{agent.id}/logs").json()["logs"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert set(entries[0]) >= {"timestamp", "message", "level", "fields"}
    older = wire.api("GET", f"/sandboxes/{agent.id}/logs")
    assert set(older.json()) == {"logs", "logEntries"}
    assert "the-word-nobody-logs" not in older.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/sandboxes/{}", None),
        ("DELETE", "/sandboxes/{}", None),
        ("POST", "/sandboxes/{}/timeout", {"timeout": 10}),
        ("POST", "/sandboxes/{}/refreshes", {}),
        ("POST", "/sandboxes/{}/pause", {}),
        ("POST", "/sandboxes/{}/resume", {}),
        ("POST", "/sandboxes/{}/connect", {"timeout": 10}),
        ("POST", "/v2/sandboxes/{}/connect", {}),
        ("GET", "/sandboxes/{}/metrics", None),
        ("GET", "/sandboxes/{}/logs", None),
        ("GET", "/v2/sandboxes/{}/logs", None),
        ("PUT", "/sandboxes/{}/network", {}),
    ],
)
def test_unknown_sandboxes_are_404_and_strangers_401(wire: Wire, method: str, path: str, body: Any) -> None:
    refused(wire.api(method, path.format(UNKNOWN), body), 404)
    refused(wire.http.request(method, path.format(UNKNOWN), json=body), 401)
    refused(wire.api(method, path.format(UNKNOWN), body, **{"X-API-KEY": "e2b_" + "0" * 40}), 401)


@pytest.mark.parametrize("timeout", [0, -1, 10**12, "abc", 1.5, True, [], 2**70, None])
def test_impossible_timeouts_are_refused_wherever_they_stand(
    wire: Wire, create: Callable[..., Agent], timeout: Any
) -> None:
    for path in ("/sandboxes", "/v2/sandboxes"):
        refused(wire.api("POST", path, {"templateID": "base", "timeout": timeout}), 400)
    agent = create()
    before = seconds_left(wire, agent.id)
    for path in ("connect", "timeout"):
        if (path, timeout) == ("timeout", 0):
            continue  # ends the sandbox at once
        refused(wire.api("POST", f"/sandboxes/{agent.id}/{path}", {"timeout": timeout}), 400)
    assert abs(seconds_left(wire, agent.id) - before) < 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"templateID": 5},
        {"templateID": ""},
        {"templateID": "base", "metadata": "x"},
        {"templateID": "base", "metadata": {"a": 1}},
        {"templateID": "base", "envVars": {"A=B": "x"}},
        {"templateID": "base", "envVars": {"A": "\0"}},
        {"templateID": "base", "autoPauseMemory": False},
        {"templateID": "base", "network": {"maskRequestHost": "é"}},
        {"templateID": "base", "network": {"httpsPorts": [49983]}},
        [],
    ],
    ids=str,
)
def test_impossible_creates_are_refused(wire: Wire, body: Any) -> None:
    refused(wire.api("POST", "/v2/sandboxes", body), 400)


def test_what_is_not_json_is_refused(wire: Wire) -> None:
    headers = {"X-API-KEY": wire.key, "Content-Type": "application/json"}
    refused(wire.http.post("/v2/sandboxes", content=b"{", headers=headers), 400)


def test_the_same_key_with_the_same_wish_is_the_same_sandbox(wire: Wire) -> None:
    field = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"templateID": "base", "timeout": 60}
    first, again = (wire.api("POST", "/v2/sandboxes", body, **field) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    other = wire.api("POST", "/v2/sandboxes", body | {"timeout": 61}, **field)
    assert other.status_code in (409, 422)
    assert other.json()["error_code"] == "idempotency_request_mismatch"
    refused(wire.api("POST", "/v2/sandboxes", body, **{"Idempotency-Key": "Not Allowed"}), 400)
    wire.api("DELETE", f"/sandboxes/{first.json()['sandboxID']}")
