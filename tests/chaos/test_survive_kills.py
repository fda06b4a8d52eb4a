"""kill -9 of any service loses no sandbox, and the service is back within seconds."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from e2b import Sandbox

from tests.chaos.reality import agrees, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack

THREE_LINES = "for i in 1 2 3; do read line; echo $line; done"


@pytest.fixture
def sandbox(doomed: Stack) -> Iterator[Sandbox]:
    sandbox = Sandbox.create(timeout=300, **doomed.sdk)
    yield sandbox
    sandbox.kill()


def test_node_dies_and_sandboxes_do_not(doomed: Stack, sandbox: Sandbox) -> None:
    sandbox.commands.run("echo kept > kept.txt; (sleep 900 &)")
    before = sandbox.commands.run("cat /proc/sys/kernel/random/boot_id; pgrep -x sleep").stdout
    doomed.kill("node")
    doomed.wait_until_answers()
    assert sandbox.commands.run("cat /proc/sys/kernel/random/boot_id; pgrep -x sleep").stdout == before
    assert sandbox.files.read("kept.txt") == "kept\n"


def test_open_stream_goes_on_while_the_node_restarts(doomed: Stack, sandbox: Sandbox) -> None:
    handle = sandbox.commands.run(THREE_LINES, background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "before\n")
    doomed.kill("node")
    doomed.wait_until_answers()
    sandbox.commands.send_stdin(handle.pid, "after\nlater\n")
    assert handle.wait().stdout == "before\nafter\nlater\n"


def test_deadline_holds_over_a_restart_of_the_node(doomed: Stack) -> None:
    sandbox = Sandbox.create(timeout=2, **doomed.sdk)
    doomed.kill("node")
    doomed.wait_until_answers()
    assert eventually(lambda: not sandbox.is_running())


def test_web_dies_and_commands_go_on(doomed: Stack, sandbox: Sandbox) -> None:
    handle = sandbox.commands.run(THREE_LINES, background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "before\n")
    doomed.kill("web")
    sandbox.commands.send_stdin(handle.pid, "after\nlater\n")
    assert handle.wait().stdout == "before\nafter\nlater\n"
    doomed.wait_until_answers()
    other = Sandbox.create(timeout=60, **doomed.sdk)
    assert other.kill() is True


def test_gateway_dies_and_is_back(doomed: Stack, sandbox: Sandbox) -> None:
    doomed.kill("gateway")
    doomed.wait_until_answers()
    assert sandbox.commands.run("echo here").stdout == "here\n"


def test_worker_dies_and_nothing_is_lost(doomed: Stack) -> None:
    sandbox = Sandbox.create(timeout=2, **doomed.sdk)
    doomed.kill("worker")
    assert eventually(lambda: not sandbox.is_running())
    assert eventually(lambda: agrees(doomed))


def test_all_at_once(doomed: Stack, sandbox: Sandbox) -> None:
    for service in ("worker", "web", "gateway", "node"):
        doomed.kill(service)
    doomed.wait_until_answers()
    assert sandbox.commands.run("echo here").stdout == "here\n"
    assert eventually(lambda: agrees(doomed))


def test_revoked_key_loses_its_open_stream(doomed: Stack) -> None:
    printed = doomed.manage("apikey", "create", "--tenant=default", "--name=temporary").stdout
    key = next(word for word in printed.split() if word.startswith("e2b_"))
    sandbox = Sandbox.create(timeout=60, **{**doomed.sdk, "api_key": key})
    handle = sandbox.commands.run("sleep 50", background=True)
    ended = threading.Event()

    def follow() -> None:
        with pytest.raises(Exception, match=r".+"):
            handle.wait()
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    time.sleep(0.5)
    rows = doomed.manage("apikey", "list", "--tenant=default").stdout.splitlines()
    key_id = next(line.split()[0] for line in rows if "temporary" in line)
    doomed.manage("apikey", "revoke", key_id)
    # The command in the sandbox would go on for much longer.
    assert ended.wait(5)
    doomed.node("DELETE", f"/v1/sandboxes/{sandbox.sandbox_id}")


@pytest.mark.embedded_only
def test_a_worker_whose_broker_lies_is_replaced(doomed: Stack, sandbox: Sandbox) -> None:
    before = doomed.pid_of("worker")

    (doomed.home / "broker" / "0_garbage.control.msg").write_bytes(b"{")

    assert eventually(lambda: doomed.pid_of("worker") != before)
    doomed.node("DELETE", f"/v1/sandboxes/{sandbox.sandbox_id}")
    assert eventually(lambda: agrees(doomed))
