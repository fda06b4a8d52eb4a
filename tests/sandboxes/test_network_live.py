"""A complete running system in an internet of the tests: what sandboxes reach follows policies and verdicts."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from e2b import CommandExitException, Sandbox

from tests.live import running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.internet.world import Internet
    from tests.live import Stack

pytestmark = pytest.mark.stack

SCOPES = (
    *("sandboxes:read", "sandboxes:write", "sandboxes:use", "networks:read", "networks:write"),
    *("risk:read", "risk:write"),
)
PLAIN, API, EVIL = "http://plain.allowed.test/", "https://api.allowed.test/", "http://evil.test/"
POLICY: dict[str, Any] = {"egress": ["plain.allowed.test:80", "api.allowed.test:443"], "ingress": [3000]}


@pytest.fixture(scope="module")
def stack(one_internet: Internet) -> Iterator[Stack]:
    """A Gatehouse whose only tenant may reach the whole internet of the tests."""
    settings: Any = one_internet.settings()
    with running_stack(**settings) as running:
        running.manage("networkpolicy", "ceiling", "default", "--public-internet")
        scopes = [f"--scope={scope}" for scope in SCOPES]
        made = running.manage("apikey", "create", "--tenant", "default", "--name", "all", *scopes)
        running.key = made.stdout.strip()
        running.rest("POST", "network-policies", {"name": "shop", **POLICY})
        yield running


@pytest.fixture(params=["base", "base-process"])
def box(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox under the policy `shop`, gone after the test."""
    made = stack.rest("POST", "sandboxes", {"network": "shop", "template": request.param})["id"]
    sandbox = Sandbox.connect(made, timeout=120, **stack.sdk)
    yield sandbox
    sandbox.kill()


def reaches(box: Sandbox, url: str) -> bool:
    try:
        box.commands.run(f"curl -fsSk -o /dev/null --max-time 10 {url}")
    except CommandExitException:
        return False
    return True


def network(stack: Stack, box: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = stack.rest("GET", f"sandboxes/{box.sandbox_id}")["network"]
    return found


def of_host(stack: Stack, box: Sandbox, code: str, host: str) -> list[dict[str, Any]]:
    """Return the events of a code and a host in the sandbox's ledger."""
    items = stack.rest("GET", f"sandboxes/{box.sandbox_id}/events?code={code}&host={host}")["items"]
    return [one for one in items if one["details"]["host"] == host]


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Return what a condition comes to once it holds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, value
        time.sleep(0.1)
    return value


def test_a_policy_says_what_is_reached_and_the_ledger_what_was(stack: Stack, box: Sandbox) -> None:
    assert [reaches(box, url) for url in (PLAIN, API, EVIL)] == [True, True, False]

    (closed,) = until(lambda: of_host(stack, box, "egress.closed", "api.allowed.test"))
    assert (closed["outcome"], closed["details"]["rule"]) == ("ok", "api.allowed.test:443")
    assert (closed["details"]["address"], closed["details"]["bytes_in"] > 0) == ("45.79.1.10", True)
    denied = until(lambda: of_host(stack, box, "egress.denied", "evil.test"))
    assert {(one["outcome"], one["severity"]) for one in denied} == {("refused", "warning")}


def port_status(stack: Stack, box: Sandbox, port: int) -> int:
    """Return what the gateway answers at a port of the sandbox."""
    headers = {"E2b-Sandbox-Id": box.sandbox_id, "E2b-Sandbox-Port": str(port)}
    try:
        with urllib.request.urlopen(urllib.request.Request(stack.url, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_policy_says_which_ports_are_reached(stack: Stack, box: Sandbox) -> None:
    for port in (3000, 3001):
        box.commands.run(f"python3 -m http.server {port}", background=True)
        ready = f"until curl -fsS --noproxy '*' -o /dev/null http://127.0.0.1:{port}/; do sleep 0.1; done"
        box.commands.run(ready, timeout=20)

    assert [port_status(stack, box, port) for port in (3000, 3001)] == [200, 502]

    stack.rest("PUT", f"sandboxes/{box.sandbox_id}/network", {"policy": "restricted"})
    until(lambda: port_status(stack, box, 3000) == 502)


def test_code_that_is_run_once_reaches_what_its_policy_names(stack: Stack) -> None:
    code = f"import urllib.request; print(urllib.request.urlopen('{PLAIN}').status)"

    within = stack.rest("POST", "executions", {"code": code, "network": "shop"})
    without = stack.rest("POST", "executions", {"code": code})

    assert (within["state"], within["stdout"]) == ("completed", "200\n")
    assert (without["state"], without["exit_code"]) == ("completed", 1)


def test_a_policy_that_changes_reaches_what_runs(stack: Stack, box: Sandbox) -> None:
    assert reaches(box, API)
    version = stack.rest("GET", "network-policies/shop")["version"]

    stack.rest("PUT", "network-policies/shop", {"version": version, **POLICY, "egress": POLICY["egress"][:1]})
    until(lambda: network(stack, box)["in_force"] == 2)
    assert [reaches(box, url) for url in (PLAIN, API)] == [True, False]

    stack.rest("PUT", "network-policies/shop", {"version": version + 1, **POLICY})
    until(lambda: network(stack, box)["in_force"] == 3)
    assert reaches(box, API)


def test_the_sdk_opens_and_closes_at_once(stack: Stack, box: Sandbox) -> None:
    assert not reaches(box, EVIL)

    box.update_network({})
    assert reaches(box, EVIL)

    box.update_network({"allow_out": ["evil.test"], "deny_out": ["0.0.0.0/0"]})
    assert [reaches(box, url) for url in (PLAIN, EVIL)] == [False, True]

    box.update_network({"allow_internet_access": False})
    assert not reaches(box, EVIL)


def test_a_metadata_probe_cuts_the_network_until_somebody_overrides_it(stack: Stack, box: Sandbox) -> None:
    thresholds = {"flag_at": None, "pause_at": None, "cut_at": 80, "refuse_at": None}
    stack.rest("PUT", "risk-policy", thresholds)
    try:
        assert not reaches(box, "http://169.254.169.254/latest/meta-data/")
        until(lambda: network(stack, box)["cut"] and network(stack, box)["in_force"] == 2)
    finally:
        stack.rest("PUT", "risk-policy", thresholds | {"cut_at": None})

    assert not reaches(box, PLAIN)
    with pytest.raises(urllib.error.HTTPError, match="409"):
        stack.rest("PUT", f"sandboxes/{box.sandbox_id}/network", {"policy": "shop"})
    verdicts = stack.rest("GET", "verdicts?action=cut")["items"]
    for verdict in [one for one in verdicts if one["sandbox_id"] == box.sandbox_id]:
        stack.rest("POST", f"verdicts/{verdict['id']}/override", {"note": "A drill."})
    until(lambda: network(stack, box)["in_force"] == 3)
    assert reaches(box, PLAIN)


def test_a_change_outlives_the_death_of_egress(stack: Stack, box: Sandbox) -> None:
    assert reaches(box, API)

    stack.kill("egress")
    # Told or not: it holds from now on.
    put(stack, box, "isolated")
    assert not reaches(box, API)

    until(lambda: network(stack, box)["in_force"] == 2)
    assert not reaches(box, API)
    until(lambda: put(stack, box, "shop"))
    assert reaches(box, API)


def put(stack: Stack, box: Sandbox, policy: str) -> bool:
    try:
        stack.rest("PUT", f"sandboxes/{box.sandbox_id}/network", {"policy": policy})
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False
    return True


# One line a round: the status of what is allowed, and what became of what is not.
ROUNDS = f"""for round in $(seq 400); do
    allowed=$(curl -sk -o /dev/null -w '%{{http_code}}' --max-time 10 {API})
    curl -sf -o /dev/null --max-time 10 {EVIL}
    echo "$allowed $?"
    sleep 0.05
done"""


def test_traffic_goes_on_while_the_control_plane_is_away(stack: Stack, box: Sandbox) -> None:
    seen = ""
    running = box.commands.run(ROUNDS, background=True, timeout=0)

    # The stream passes the gateway alone, so that it says what happens while nobody else is there.
    stack.kill("web")
    stack.kill("worker")
    for out, _, _ in running:
        seen += out or ""
        if seen.count("\n") > 60 and stack.answers():
            break
    running.kill()
    stack.wait_until_answers()

    # 22 is curl's word for an answer that is an error: the refusal.
    assert set(seen.split("\n")[:-1]) == {"200 22"}
    assert until(lambda: of_host(stack, box, "egress.denied", "evil.test"))
    assert until(lambda: of_host(stack, box, "egress.closed", "api.allowed.test"))
