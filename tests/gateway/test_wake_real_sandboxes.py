"""A paused sandbox goes on when a call comes in, and private ports open to the traffic token: all parts together."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from e2b import Sandbox
from e2b.exceptions import TimeoutException

from tests.gateway.realports import Port, listen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack

pytestmark = pytest.mark.stack
AGENT = 49983


@pytest.fixture
def sandbox(stack: Stack) -> Iterator[Sandbox]:
    """A sandbox that calls may wake, with a server on port 8080 and another process."""
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    sandbox = Sandbox.create(timeout=300, lifecycle=lifecycle, **stack.sdk)  # type: ignore[arg-type]
    listen(sandbox, "127.0.0.1", 8080)
    yield sandbox
    sandbox.kill()


def state(sandbox: Sandbox) -> str:
    """Return what the API says about it."""
    return str(sandbox.get_info().state.value)


def test_a_request_to_a_port_wakes_it(stack: Stack, sandbox: Sandbox) -> None:
    with Port(stack, sandbox) as port:
        before = port.seen("GET", "/")["connection"]
        sandbox.pause()
        assert state(sandbox) == "paused"

        assert port.seen("GET", "/")["connection"] > before

    assert state(sandbox) == "running"


def test_a_command_wakes_it_and_finds_everything_as_it_was(sandbox: Sandbox) -> None:
    processes = sandbox.commands.run("pgrep -f '[s]erver.py'; cat /proc/sys/kernel/random/boot_id").stdout
    for _ in range(3):
        sandbox.pause()
        assert sandbox.commands.run("pgrep -f '[s]erver.py'; cat /proc/sys/kernel/random/boot_id").stdout == processes


def test_a_command_that_waited_goes_on(sandbox: Sandbox) -> None:
    waiting = sandbox.commands.run("read line; echo got $line", background=True, stdin=True)
    sandbox.pause()

    attached = sandbox.commands.connect(waiting.pid)
    sandbox.commands.send_stdin(waiting.pid, "it\n")

    assert attached.wait().stdout == "got it\n"


def test_many_requests_wake_it_together(stack: Stack, sandbox: Sandbox) -> None:
    def ask(_: int) -> int:
        with Port(stack, sandbox) as port:
            return port.ask("GET", "/")[0].status

    sandbox.pause()
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(ask, range(12))) == [200] * 12


def test_a_stranger_wakes_nobody(stack: Stack, sandbox: Sandbox) -> None:
    sandbox.pause()

    with Port(stack, sandbox, AGENT) as port:
        answer, body = port.ask("POST", "/process.Process/List", b"{}", **{"Content-Type": "application/json"})

    assert (answer.status, json.loads(body)["message"]) == (
        403,
        "This sandbox can't be resumed with the credentials provided. Check your access token and try again.",
    )
    assert state(sandbox) == "paused"


def test_one_that_should_sleep_is_not_found(stack: Stack) -> None:
    sandbox = Sandbox.create(timeout=60, **stack.sdk)
    sandbox.pause()

    with Port(stack, sandbox) as port:
        answer, body = port.ask("GET", "/")

    assert (answer.status, json.loads(body)["message"]) == (502, "The sandbox was not found")
    assert not sandbox.is_running()
    with pytest.raises(TimeoutException):
        sandbox.commands.run("true")
    sandbox.kill()


def test_what_is_open_ends_at_once(stack: Stack, sandbox: Sandbox) -> None:
    with Port(stack, sandbox) as port:
        port.connection.putrequest("POST", "/", skip_host=True)
        port.connection.putheader("Host", port.host)
        port.connection.putheader("Content-Length", "10")
        port.connection.endheaders(b"half")
        sandbox.pause()

        answer = port.connection.getresponse()
        assert (answer.status, json.loads(answer.read())["message"]) == (502, "The sandbox was not found")


def test_private_ports_open_to_the_traffic_token(stack: Stack) -> None:
    network = {"allow_public_traffic": False, "mask_request_host": "${PORT}-app.example.com"}
    sandbox = Sandbox.create(timeout=120, network=network, **stack.sdk)  # type: ignore[arg-type]
    listen(sandbox, "127.0.0.1", 8080)
    token = str(sandbox.traffic_access_token)

    with Port(stack, sandbox) as port:
        assert [port.ask("GET", "/", **{"E2B-Traffic-Access-Token": wrong})[0].status for wrong in ("x", "")] == [
            403,
            403,
        ]
        seen = port.seen("GET", "/", **{"E2B-Traffic-Access-Token": token})

    assert seen["fields"]["host"] == "8080-app.example.com"
    assert token not in json.dumps(seen)
    sandbox.kill()
