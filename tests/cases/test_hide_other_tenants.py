"""Another tenant's ids, on every route: as if they did not exist, byte for byte, and known to the audit."""

from __future__ import annotations

import re
import secrets
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.sdk.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack
    from tests.sdk.wire import Agent

RANDOM = "i" + secrets.token_hex(10)
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/sandboxes/{}", None),
    ("DELETE", "/sandboxes/{}", None),
    ("POST", "/sandboxes/{}/timeout", {"timeout": 1}),
    ("POST", "/sandboxes/{}/refreshes", {}),
    ("POST", "/sandboxes/{}/pause", {}),
    ("POST", "/sandboxes/{}/resume", {}),
    ("POST", "/sandboxes/{}/connect", {"timeout": 10}),
    ("POST", "/v2/sandboxes/{}/connect", {}),
    ("GET", "/sandboxes/{}/metrics", None),
    ("GET", "/sandboxes/{}/logs", None),
    ("GET", "/v2/sandboxes/{}/logs", None),
    ("GET", "/sandboxes/metrics?sandbox_ids={}", None),
    ("GET", "/v2/sandboxes?template={}", None),
    ("POST", "/v2/sandboxes", {"templateID": "{}"}),
    ("GET", "/api/v1/sandboxes/{}", None),
    ("DELETE", "/api/v1/sandboxes/{}", None),
]


@pytest.fixture(scope="module")
def template() -> str:
    """What one tenant sees of another does not depend on the tier."""
    return "base"


@pytest.fixture(scope="module")
def mallory(roomy_stack: Stack) -> Iterator[Wire]:
    """Return a client with another tenant's key."""
    slug = f"m-{secrets.token_hex(4)}"
    roomy_stack.manage("tenant", "create", slug)
    scopes = [f"--scope={name}" for name in ("sandboxes:read", "sandboxes:write", "sandboxes:use", "audit:read")]
    printed = roomy_stack.manage("apikey", "create", f"--tenant={slug}", "--name=mallory", *scopes).stdout
    with Wire(roomy_stack.url, re.findall(r"e2b_\w+", printed)[0]) as wire:
        yield wire


def asked(wire: Wire, route: tuple[str, str, Any], sandbox_id: str) -> tuple[int, str]:
    """Make a call about a sandbox; return the answer without what names the sandbox or the request."""
    method, path, body = route
    if isinstance(body, dict):
        body = {name: value.format(sandbox_id) if isinstance(value, str) else value for name, value in body.items()}
    answer = wire.api(method, path.format(sandbox_id), body)
    text = answer.text.replace(sandbox_id, "ID")
    return answer.status_code, re.sub(r'"request_?[iI]d":\s*"[^"]*"', "", text)


@pytest.mark.parametrize("route", ROUTES, ids=[f"{method} {path}" for method, path, _ in ROUTES])
def test_it_is_as_if_it_did_not_exist(mallory: Wire, agent: Agent, route: tuple[str, str, Any]) -> None:
    status, text = asked(mallory, route, agent.id)
    assert (status, text) == asked(mallory, route, RANDOM)
    assert status == 404 or text in ("[]", '{"sandboxes":{}}')
    assert agent.run("echo untouched")[0] == "untouched\n"


def test_it_takes_no_longer_either(mallory: Wire, agent: Agent) -> None:
    def median_s(sandbox_id: str) -> float:
        samples = []
        for _ in range(40):
            began = time.perf_counter()
            mallory.api("GET", f"/sandboxes/{sandbox_id}")
            samples.append(time.perf_counter() - began)
        return statistics.median(samples)

    median_s(RANDOM)
    theirs, nobodys = median_s(agent.id), median_s(RANDOM)
    assert abs(theirs - nobodys) < max(0.005, nobodys)


@pytest.mark.parametrize("path", ["/files?path=.bashrc", "/envs", "/metrics"])
def test_data_of_the_sandbox_does_not_open_to_another_key(mallory: Wire, agent: Agent, path: str) -> None:
    own = mallory.create()
    for token in (own.created["envdAccessToken"], mallory.key, ""):
        answer = mallory.http.get(path, headers={**agent.route, "X-Access-Token": token})
        assert answer.status_code == 401
    own.kill()


def test_the_list_holds_only_ones_own(mallory: Wire, agent: Agent) -> None:
    own = mallory.create()
    assert [row["sandboxID"] for row in mallory.api("GET", "/v2/sandboxes").json()] == [own.id]
    own.kill()


def test_the_attempt_is_in_the_audit_of_who_tried(mallory: Wire, agent: Agent) -> None:
    mallory.api("DELETE", f"/sandboxes/{agent.id}")
    rows = mallory.api("GET", "/api/v1/audit-events").json()["items"]
    assert [row["risk_score"] > 0 for row in rows if row["object"]["id"] == agent.id][:1] == [True], rows[:3]
