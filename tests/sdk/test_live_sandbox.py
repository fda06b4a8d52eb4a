"""The life of a sandbox through the SDK: info, list, timeout, connect, kill; and whom it refuses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from e2b import AsyncSandbox, Sandbox, SandboxQuery, SandboxState, TimeoutException
from e2b.exceptions import AuthenticationException, NotFoundException, SandboxException, SandboxNotFoundException

if TYPE_CHECKING:
    from tests.live import Stack


def test_info_tells_what_was_asked(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=100, metadata={"agent": "alice"}, **sdk)
    try:
        info = sandbox.get_info()
        assert info.sandbox_id == sandbox.sandbox_id
        assert info.metadata == {"agent": "alice"}
        assert info.state == SandboxState.RUNNING
        assert 98 <= (info.end_at - info.started_at).total_seconds() <= 101
        assert (info.cpu_count, info.memory_mb) == (1, 512)
    finally:
        sandbox.kill()


def test_listed_while_it_runs(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=100, metadata={"run": "list-test"}, **sdk)
    query = SandboxQuery(metadata={"run": "list-test"})
    options = {name: sdk[name] for name in ("api_key", "api_url")}
    assert [row.sandbox_id for row in Sandbox.list(query=query, **options).next_items()] == [sandbox.sandbox_id]
    sandbox.kill()
    assert Sandbox.list(query=query, **options).next_items() == []


def test_expires_within_a_second(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=2, **sdk)
    assert sandbox.is_running()
    time.sleep(3)
    assert sandbox.is_running() is False
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        sandbox.get_info()


def test_timeout_can_be_extended_and_shortened(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=2, **sdk)
    sandbox.set_timeout(60)
    time.sleep(3)
    assert sandbox.is_running()
    sandbox.set_timeout(1)
    time.sleep(2)
    assert sandbox.is_running() is False


def test_connect_from_another_process(sandbox: Sandbox, sdk: dict[str, Any]) -> None:
    sandbox.files.write("shared.txt", "left here")
    other = Sandbox.connect(sandbox.sandbox_id, **sdk)
    assert other.files.read("shared.txt") == "left here"


def test_kill_twice(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=60, **sdk)
    assert sandbox.kill() is True
    assert sandbox.kill() is False


def test_killed_during_a_command(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=60, **sdk)
    handle = sandbox.commands.run("sleep 100", background=True)
    sandbox.kill()
    started = time.monotonic()
    with pytest.raises((SandboxException, TimeoutException)):
        handle.wait()
    assert time.monotonic() - started < 5


async def test_killed_during_a_command_async(sdk: dict[str, Any]) -> None:
    sandbox = await AsyncSandbox.create(timeout=60, **sdk)
    handle = await sandbox.commands.run("sleep 100", background=True)
    await sandbox.kill()
    with pytest.raises((SandboxException, TimeoutException)):
        await handle.wait()


def test_wrong_key_is_unauthorized(sdk: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationException):
        Sandbox.create(timeout=60, **{**sdk, "api_key": "e2b_" + "0" * 40})


def test_unknown_id_is_not_found(sdk: dict[str, Any]) -> None:
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        Sandbox.connect("i00000000000000000000", **sdk)
    assert Sandbox.kill("i00000000000000000000", **{name: sdk[name] for name in ("api_key", "api_url")}) is False


def test_unknown_template_is_refused(stack: Stack) -> None:
    before = stack.live_ids()
    with pytest.raises(SandboxException):
        Sandbox.create("no-such-template", timeout=60, **stack.sdk)
    assert stack.live_ids() == before


@pytest.mark.parametrize("timeout", [-1, 10**9])
def test_impossible_timeout_is_refused(stack: Stack, timeout: int) -> None:
    before = stack.live_ids()
    with pytest.raises(SandboxException, match="Timeout"):
        Sandbox.create(timeout=timeout, **stack.sdk)
    assert stack.live_ids() == before


def test_internet_access_is_what_the_ceiling_allows(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=60, allow_internet_access=True, **sdk)
    try:
        # The connection itself ends in the sandbox; what counts is that nobody answers on it.
        ask = "exec 3<>/dev/tcp/1.1.1.1/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -c 1 <&3 | grep -q ."
        attempt = f'timeout 5 bash -c "{ask}" 2>/dev/null && echo reached || echo refused'
        assert sandbox.commands.run(attempt).stdout == "refused\n"
    finally:
        sandbox.kill()


def test_context_manager_kills(sdk: dict[str, Any]) -> None:
    with Sandbox.create(timeout=60, **sdk) as sandbox:
        assert sandbox.is_running()
    assert sandbox.is_running() is False
