"""One flow through everything, in a hardened container and under gVisor, whose sandboxes keep the same protocol."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from e2b import FilesystemEventType, PtySize, Sandbox, SandboxState
from e2b.exceptions import AuthenticationException

from tests.gateway.realports import Port, listen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack


@pytest.fixture(scope="module", params=["base-hardened", "base-gvisor"])
def sandbox(request: pytest.FixtureRequest, roomy_stack: Stack) -> Iterator[Sandbox]:
    """Return a sandbox of one of the other ways to isolate."""
    sandbox = Sandbox.create(str(request.param), timeout=600, **roomy_stack.sdk)
    yield sandbox
    sandbox.kill()


def test_commands(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("echo out; echo err >&2; id -un; pwd", envs={"A": "b"})
    assert (result.stdout, result.stderr) == ("out\nuser\n/home/user\n", "err\n")
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "hello")
    sandbox.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "hello"


def test_files(sandbox: Sandbox) -> None:
    sandbox.files.write("flow/a", b"\0bytes\xff", metadata={"author": "alice"})
    assert bytes(sandbox.files.read("flow/a", format="bytes")) == b"\0bytes\xff"
    assert sandbox.files.rename("flow/a", "flow/b").path == "/home/user/flow/b"
    assert [entry.name for entry in sandbox.files.list("flow")] == ["b"]
    sandbox.files.remove("flow")
    assert sandbox.files.exists("flow") is False


def test_a_terminal(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=30)
    sandbox.pty.resize(terminal.pid, PtySize(rows=50, cols=132))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
    seen = bytearray()
    terminal.wait(on_pty=seen.extend)
    assert b"50 132" in seen


def test_watching(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("watched")
    watcher = sandbox.files.watch_dir("watched")
    sandbox.files.write("watched/a", "x")
    seen: list[Any] = []
    deadline = time.monotonic() + 5
    while (FilesystemEventType.WRITE, "a") not in [(event.type, event.name) for event in seen]:
        assert time.monotonic() < deadline, seen
        seen += watcher.get_new_events()
    watcher.stop()


def test_a_port(sandbox: Sandbox, roomy_stack: Stack) -> None:
    listen(sandbox, "127.0.0.1", 8080)
    with Port(roomy_stack, sandbox) as port:
        assert port.seen("GET", "/x")["target"] == "/x"


def test_a_pause(sandbox: Sandbox) -> None:
    before = [process.pid for process in sandbox.commands.list()]
    assert sandbox.pause() is True
    assert sandbox.get_info().state == SandboxState.PAUSED
    sandbox.connect(timeout=600)
    assert sandbox.get_info().state == SandboxState.RUNNING
    assert [process.pid for process in sandbox.commands.list()] == before
    assert sandbox.commands.run("echo awake").stdout == "awake\n"


def test_root(sandbox: Sandbox) -> None:
    if sandbox.get_info().name == "base-gvisor":
        assert sandbox.commands.run("id -u", user="root").stdout == "0\n"
    else:
        with pytest.raises(AuthenticationException, match="'root'"):
            sandbox.commands.run("id -u", user="root")
