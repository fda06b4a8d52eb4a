"""A changed policy, ceiling, bundle or deny list reaches a sandbox that runs; and what it did teaches its policy.

The internet is the tests' own, on this machine.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from e2b import Sandbox

from tests import live
from tests.internet.fixtures import internet, one_internet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.internet.world import Internet
    from tests.live import Stack

__all__ = ["internet", "one_internet"]

DB, API = "db.allowed.test:5432", "api.allowed.test:443"
WITHIN_S = 20.0
# As a program connects that knows no proxy.
CONNECT = """python3 -c '
import socket, sys
try:
    with socket.create_connection(("db.allowed.test", 5432), 8) as sock:
        print("reached" if sock.recv(100) else "ended")
except OSError as error:
    print("refused")
'"""
# It holds a connection, says so, and then how it ended.
HOLD = """python3 -u -c '
import socket
sock = socket.create_connection(("db.allowed.test", 5432), 8)
sock.recv(100)
print("open")
try:
    print("ended" if not sock.recv(1) else "told")
except OSError as error:
    print("reset")
'"""


@pytest.fixture(scope="module")
def connected_stack(one_internet: Internet) -> Iterator[Stack]:
    """A complete Gatehouse whose way out leads to the tests' internet, and whose tenant may reach all of it."""
    with live.running_stack(command=None, **one_internet.settings()) as stack:
        stack.manage("networkpolicy", "ceiling", "default", "--public-internet")
        yield stack


@pytest.fixture
def rest(connected_stack: Stack) -> Iterator[httpx.Client]:
    """Return the REST API with the tenant's key; a new one that may do everything in it."""
    scopes = ("networks:read", "networks:write", "sandboxes:read", "sandboxes:write", "sandboxes:use", "audit:read")
    options = [part for scope in scopes for part in ("--scope", scope)]
    key = connected_stack.manage("apikey", "create", "--tenant", "default", "--name", "rest", *options).stdout.strip()
    with httpx.Client(base_url=f"{connected_stack.url}/api/v1/", headers={"X-API-KEY": key}, timeout=60) as client:
        yield client


@pytest.fixture
def policy(rest: httpx.Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of a new policy that lets the database through."""
    name = f"work-{time.time_ns()}"
    assert rest.post("network-policies", json={"name": name, "egress": [DB, API]}).status_code == 201
    yield name
    assert rest.delete(f"network-policies/{name}").status_code == 204


@pytest.fixture
def sandbox(connected_stack: Stack, rest: httpx.Client, policy: str, internet: Internet) -> Iterator[Sandbox]:
    """Return a sandbox that runs under the policy."""
    made = rest.post("sandboxes", json={"template": "base-process", "timeout": 300, "network": policy})
    assert made.status_code == 201, made.text
    sandbox = Sandbox.connect(made.json()["id"], **connected_stack.sdk)
    yield sandbox
    sandbox.kill()


def eventually(found: Callable[[], object]) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + WITHIN_S
    while not found():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.1)


def reached(sandbox: Sandbox) -> str:
    """Say whether a program in the sandbox reaches the database."""
    return sandbox.commands.run(CONNECT).stdout.strip()


def in_force(rest: httpx.Client, sandbox: Sandbox) -> Callable[[], bool]:
    """Return what says that the sandbox's node obeys the newest version, and that there is a newer one than now."""

    def network() -> dict[str, Any]:
        found: dict[str, Any] = rest.get(f"sandboxes/{sandbox.sandbox_id}").json()["network"]
        return found

    before = network()["version"]
    return lambda: before < (now := network())["version"] == now["in_force"]


def replace(rest: httpx.Client, policy: str, egress: list[str]) -> None:
    """Make a policy something else."""
    version = rest.get(f"network-policies/{policy}").json()["version"]
    answer = rest.put(f"network-policies/{policy}", json={"version": version, "egress": egress})
    assert answer.status_code == 200, answer.text


def line_of(said: Iterator[tuple[str | None, ...]]) -> str:
    """Return the next line of a command's output, in however many pieces it comes."""
    line = ""
    while not line.endswith("\n"):
        line += next(said)[0] or ""
    return line


def test_a_changed_policy_closes_what_lost_its_right(rest: httpx.Client, policy: str, sandbox: Sandbox) -> None:
    held = sandbox.commands.run(HOLD, background=True)
    said = iter(held)
    assert line_of(said) == "open\n"
    obeyed = in_force(rest, sandbox)

    replace(rest, policy, [API])

    assert line_of(said) in {"reset\n", "ended\n"}
    eventually(obeyed)
    assert reached(sandbox) == "refused"

    obeyed = in_force(rest, sandbox)
    replace(rest, policy, [API, DB])
    eventually(obeyed)
    assert reached(sandbox) == "reached"


def test_ceiling_and_deny_list_hold_for_what_runs(
    connected_stack: Stack, rest: httpx.Client, policy: str, sandbox: Sandbox
) -> None:
    for change, undo in (
        (("ceiling", "default"), ("ceiling", "default", "--public-internet")),
        (("deny", "*.allowed.test:5432"), ("deny",)),
    ):
        assert reached(sandbox) == "reached"
        obeyed = in_force(rest, sandbox)
        connected_stack.manage("networkpolicy", *change)
        eventually(obeyed)
        assert reached(sandbox) == "refused"

        obeyed = in_force(rest, sandbox)
        connected_stack.manage("networkpolicy", *undo)
        eventually(obeyed)
        assert reached(sandbox) == "reached"


def test_a_bundle_that_is_filled_opens_what_runs(
    connected_stack: Stack, rest: httpx.Client, policy: str, sandbox: Sandbox
) -> None:
    connected_stack.manage("bundles", "set", "own")
    obeyed = in_force(rest, sandbox)
    replace(rest, policy, ["@own"])
    eventually(obeyed)
    assert reached(sandbox) == "refused"

    obeyed = in_force(rest, sandbox)
    connected_stack.manage("bundles", "set", "own", DB)

    eventually(obeyed)
    assert reached(sandbox) == "reached"


def test_what_a_sandbox_did_teaches_its_policy(
    connected_stack: Stack, rest: httpx.Client, policy: str, sandbox: Sandbox
) -> None:
    assert reached(sandbox) == "reached"
    other = CONNECT.replace("db.allowed.test", "evil.test")
    assert sandbox.commands.run(other).stdout.strip() == "refused"
    tunnel = "curl -s -m 5 -x http://127.0.0.1:3128 -p -o /dev/null http://evil.test:5432/ || true"
    sandbox.commands.run(tunnel)
    draft = f"sandboxes/{sandbox.sandbox_id}/network/draft"
    eventually(lambda: rest.get(draft).json()["events"] >= 3)

    found = rest.get(draft).json()

    assert (found["body"]["egress"], found["body"]["dns"]) == ([DB, "evil.test:5432"], True)
    assert (found["tried"], found["left_out"], found["cut"]) == (["evil.test:5432"], [], False)
    replayed = rest.post("network-replay", json={"egress": ["evil.test:5432"]}).json()
    assert DB in {f"{one['host']}:{one['port']}" for one in replayed["broken"]}
    assert "evil.test:5432" in {f"{one['host']}:{one['port']}" for one in replayed["opened"]}
    learnt = json.loads(connected_stack.manage("networkpolicy", "learn", sandbox.sandbox_id).stdout)
    assert learnt == found["body"]
