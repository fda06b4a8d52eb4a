"""kill -9 of the database: what runs goes on, the API says when to come back, and no event is lost or there twice."""

from __future__ import annotations

import http.client
import json
import random
import threading
from typing import TYPE_CHECKING

import pytest
from e2b import Sandbox

from tests.chaos.ledger import Caller, counts, found, rows
from tests.chaos.reality import agrees, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.live import Stack
    from tests.servers import Server

pytestmark = pytest.mark.servers_only

COMMANDS = 6
CALLERS = 3
KILLS = 3
# What the callers do between a kill and the next start, and between a start and the next kill.
MORE = 6


@pytest.fixture
def server(database: Server | None) -> Iterator[Server]:
    assert database is not None
    yield database
    if database.process is None:
        database.start()


@pytest.fixture
def sandbox(doomed: Stack) -> Iterator[Sandbox]:
    sandbox = Sandbox.create(timeout=300, **doomed.sdk)
    yield sandbox
    sandbox.kill()


def ask(stack: Stack, path: str) -> tuple[int, str | None, str]:
    """Return status, Retry-After and body of what web answers."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    try:
        connection.request("GET", path, headers={"X-API-KEY": stack.key})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Retry-After"), answer.read().decode()
    finally:
        connection.close()


def pids(stack: Stack) -> dict[str, int]:
    """Return who runs."""
    return {service: stack.pid_of(service) for service in ("node", "gateway", "web", "worker")}


def works(stack: Stack) -> bool:
    """Tell whether the API reads its rows."""
    return ask(stack, "/v2/sandboxes")[0] == 200


def sealed(stack: Stack) -> bool:
    """Tell whether nothing waits for its place in a chain."""
    now = counts(stack)
    return now["waiting"] == 0 and now["seals"] == now["events"] == now["chains"]


def commands_of(stack: Stack, sandbox: Sandbox) -> int:
    """Return how many commands of a sandbox the ledger knows."""
    asked = "SELECT object_id FROM audit_event WHERE code = 'command.start' AND phase <> 'result'"
    return rows(stack, asked).count((sandbox.sandbox_id,))


def act_until(over: threading.Event, caller: Caller) -> None:
    """Let a caller do one thing after another."""
    while not over.is_set():
        caller.act()


def wait_for_more(callers: list[Caller], done: Callable[[Caller], int]) -> None:
    """Return when the callers together have done more than before."""
    before = sum(map(done, callers))
    assert eventually(lambda: sum(map(done, callers)) >= before + MORE, 60)


def assert_whole(stack: Stack) -> None:
    """Check that each event is there once, sealed without a gap, and that the ledger verifies."""
    assert eventually(lambda: sealed(stack), 30), counts(stack)
    assert counts(stack)["results"] == 0
    gaps = "SELECT chain FROM audit_seal GROUP BY chain HAVING MIN(seq) <> 1 OR MAX(seq) <> COUNT(*)"
    assert rows(stack, gaps) == []
    verified = stack.manage("audit_verify", check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_commands_go_on_and_their_events_follow(doomed: Stack, server: Server, sandbox: Sandbox) -> None:
    before = pids(doomed)
    handle = sandbox.commands.run("read line; echo $line", background=True, stdin=True)
    server.kill()

    for number in range(COMMANDS):
        assert sandbox.commands.run(f"echo {number}").stdout == f"{number}\n"
    sandbox.files.write("kept", "yes")
    sandbox.commands.send_stdin(handle.pid, "still here\n")
    assert handle.wait().stdout == "still here\n"

    server.start()
    assert eventually(lambda: works(doomed))
    assert eventually(lambda: commands_of(doomed, sandbox) >= COMMANDS + 1)
    assert pids(doomed) == before
    assert_whole(doomed)
    assert commands_of(doomed, sandbox) == COMMANDS + 1


def test_the_api_says_when_to_come_back(doomed: Stack, server: Server) -> None:
    server.kill()

    status, retry_after, content = ask(doomed, "/v2/sandboxes")
    assert (status, retry_after, json.loads(content)["error_code"]) == (503, "1", "unavailable")
    status, retry_after, content = ask(doomed, "/api/v1/sandboxes")
    assert (status, retry_after, json.loads(content)["code"]) == (503, "1", "unavailable")
    assert "127.0.0.1" not in content
    assert ask(doomed, "/health")[0] == 200

    server.start()
    assert eventually(lambda: works(doomed))


def test_a_page_says_when_to_come_back(doomed: Stack, server: Server) -> None:
    server.kill()
    connection = http.client.HTTPConnection("127.0.0.1", doomed.port, timeout=30)
    connection.request("GET", "/operator/audit", headers={"Cookie": "session=" + "a" * 32})
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
    assert "The database does not answer at the moment." in content

    server.start()
    assert eventually(lambda: works(doomed))


def test_many_callers_meet_no_error_but_503(doomed: Stack, server: Server) -> None:
    over = threading.Event()
    seen: set[int] = set()

    def call() -> None:
        while not over.is_set():
            seen.add(ask(doomed, "/v2/sandboxes")[0])

    threads = [threading.Thread(target=call, daemon=True) for _ in range(50)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: 200 in seen)
    server.kill()
    assert eventually(lambda: 503 in seen)
    server.start()
    seen.discard(200)
    assert eventually(lambda: 200 in seen)
    over.set()
    for thread in threads:
        thread.join(30)
    assert seen == {200, 503}


def test_no_acknowledged_event_is_lost_and_none_is_there_twice(doomed: Stack, server: Server) -> None:
    before = pids(doomed)
    callers = [Caller(doomed, random.Random(seed)) for seed in range(CALLERS)]
    over = threading.Event()
    threads = [threading.Thread(target=act_until, args=(over, caller), daemon=True) for caller in callers]
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        # Killed in the middle of what the callers do, never between.
        wait_for_more(callers, lambda caller: len(caller.expected))
        server.kill()
        wait_for_more(callers, lambda caller: caller.tried)
        server.start()
    wait_for_more(callers, lambda caller: len(caller.expected))
    over.set()
    for thread in threads:
        thread.join(60)

    assert set().union(*(caller.refused for caller in callers)) <= {503}
    expected = set().union(*(caller.expected for caller in callers))
    assert eventually(lambda: expected <= found(doomed).keys(), 30), expected - found(doomed).keys()
    assert {pair for pair, times in found(doomed).items() if times > 1 and pair in expected} == set()
    assert_whole(doomed)
    assert eventually(lambda: agrees(doomed))
    assert pids(doomed) == before


def test_everything_at_once(doomed: Stack, server: Server, sandbox: Sandbox) -> None:
    server.kill()
    for service in ("worker", "web", "gateway", "node"):
        doomed.kill(service)
    server.start()
    doomed.wait_until_answers()

    assert sandbox.commands.run("echo here").stdout == "here\n"
    assert eventually(lambda: commands_of(doomed, sandbox) == 1)
    assert eventually(lambda: agrees(doomed))
    assert_whole(doomed)
