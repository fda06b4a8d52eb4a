"""kill -9 of web, worker and node while sandboxes are paused and resumed: each ends in one true state, none is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from typing import TYPE_CHECKING

from e2b import Sandbox
from e2b.exceptions import AuthenticationException, SandboxException, ServiceBusyException

from tests.chaos.reality import counted, eventually

if TYPE_CHECKING:
    from tests.live import Stack

COUNT = 4
ROUNDS = 3
# What a call may end with while the service that it needs is away.
_AWAY = (SandboxException, ServiceBusyException, AuthenticationException, OSError, http.client.HTTPException)


def states_listed(stack: Stack) -> dict[str, str]:
    """Return the state of each sandbox as the API lists it."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    try:
        connection.request("GET", "/v2/sandboxes", headers={"X-API-KEY": stack.key})
        return {row["sandboxID"]: row["state"] for row in json.loads(connection.getresponse().read())}
    finally:
        connection.close()


def agree(stack: Stack) -> bool:
    """Tell whether node, rows and counters say the same."""
    real = {row["id"]: row["state"] for row in stack.node("GET", "/v1/sandboxes")["sandboxes"]}
    real = {key: state for key, state in real.items() if state != "ended"}
    return real == states_listed(stack) and list(real.values()).count("running") == counted(stack)


def test_every_sandbox_ends_in_one_true_state(doomed: Stack) -> None:
    sandboxes = [Sandbox.create(timeout=600, **doomed.sdk) for _ in range(COUNT)]
    marks = {}
    for sandbox in sandboxes:
        sandbox.commands.run("echo kept > kept; (sleep 900 &)")
        marks[sandbox.sandbox_id] = sandbox.commands.run("pgrep -x sleep; cat kept").stdout
    over = threading.Event()

    def toggle(sandbox: Sandbox) -> None:
        while not over.is_set():
            with contextlib.suppress(*_AWAY):
                sandbox.pause(request_timeout=5)
            with contextlib.suppress(*_AWAY):
                sandbox.connect(request_timeout=5)

    threads = [threading.Thread(target=toggle, args=(sandbox,), daemon=True) for sandbox in sandboxes]
    for thread in threads:
        thread.start()
    for _ in range(ROUNDS):
        for service in ("web", "worker", "node"):
            time.sleep(0.5)
            doomed.kill(service)
            doomed.wait_until_answers()
    over.set()
    for thread in threads:
        thread.join(60)

    assert eventually(lambda: agree(doomed), 30)
    for sandbox in sandboxes:
        again = sandbox.connect()
        assert again.commands.run("pgrep -x sleep; cat kept").stdout == marks[sandbox.sandbox_id]
    assert eventually(lambda: agree(doomed))
    for sandbox in sandboxes:
        assert sandbox.kill() is True
    assert eventually(lambda: states_listed(doomed) == {} and counted(doomed) == 0)


def test_a_pause_at_the_end_of_the_time_is_known_after_worker_and_node_were_away(doomed: Stack) -> None:
    sandbox = Sandbox.create(timeout=2, lifecycle={"on_timeout": "pause"}, **doomed.sdk)
    sandbox.files.write("kept", "yes")
    for service in ("worker", "node"):
        doomed.kill(service)
    doomed.wait_until_answers()

    assert eventually(lambda: states_listed(doomed) == {sandbox.sandbox_id: "paused"})
    assert eventually(lambda: agree(doomed))
    assert sandbox.connect(timeout=60).files.read("kept") == "yes"
    sandbox.kill()


def test_a_suspended_tenant_loses_its_streams_and_its_tokens(doomed: Stack) -> None:
    sandbox = Sandbox.create(timeout=120, **doomed.sdk)
    handle = sandbox.commands.run("sleep 50", background=True)
    ended: list[float] = []

    def follow() -> None:
        with contextlib.suppress(SandboxException, *_AWAY):
            handle.wait()
        ended.append(time.monotonic())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    doomed.manage("tenant", "suspend", "default")
    done = time.monotonic()
    thread.join(5)
    assert ended
    assert ended[0] < done + 1
    assert sandbox.is_running() is False
    refused = http.client.HTTPConnection("127.0.0.1", doomed.port, timeout=10)
    refused.request("GET", f"/sandboxes/{sandbox.sandbox_id}", headers={"X-API-KEY": doomed.key})
    assert refused.getresponse().status == 403
    refused.close()

    doomed.manage("tenant", "activate", "default")
    assert sandbox.connect().commands.run("pgrep -x sleep").stdout == f"{handle.pid}\n"
    sandbox.kill()
