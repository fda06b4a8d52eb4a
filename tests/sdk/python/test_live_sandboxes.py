"""The life of a sandbox through the SDK: create, info, time limits, connect, kill; and whom it refuses."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from e2b import SandboxState, TimeoutException
from e2b.exceptions import AuthenticationException, NotFoundException, SandboxException, SandboxNotFoundException

UNKNOWN = "i" + "0" * 20


async def test_create_and_info(fresh: Any, ok: Any, template: str) -> None:
    sandbox = await fresh(timeout=100, metadata={"agent": "alice"})
    info = await ok(sandbox.get_info())
    assert (info.sandbox_id, info.state, info.name) == (sandbox.sandbox_id, SandboxState.RUNNING, template)
    assert info.metadata == {"agent": "alice"}
    assert 98 <= (info.end_at - info.started_at).total_seconds() <= 101
    assert abs(datetime.now(timezone.utc) - info.started_at) < timedelta(minutes=1)  # noqa: UP017
    assert (info.cpu_count, info.memory_mb) == (1, 512)
    assert sandbox.sandbox_id.isalnum()
    assert info.envd_version.count(".") == 2


async def test_create_with_variables_for_every_process(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(envs={"A": "sandbox", "B": "sandbox", "E2B_SANDBOX": "no"})
    result = await ok(sandbox.commands.run("echo $A $B $E2B_SANDBOX", envs={"B": "command"}))
    assert result.stdout == "sandbox command true\n"


async def test_create_keeps_metadata_of_every_shape(fresh: Any, ok: Any) -> None:
    metadata = {"a b": "c&d", "ü": "☃=;", "empty": ""}
    sandbox = await fresh(metadata=metadata)
    assert (await ok(sandbox.get_info())).metadata == metadata


async def test_five_minutes_unless_told_otherwise(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(timeout=None)
    info = await ok(sandbox.get_info())
    assert 298 <= (info.end_at - info.started_at).total_seconds() <= 301


async def test_ends_when_its_time_is_up(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(timeout=1)
    assert await ok(sandbox.is_running()) is True
    await until_gone(sandbox, ok, 3)
    deadline = time.monotonic() + 3
    # The control plane hears of it a moment later than callers of the sandbox.
    while await is_known(sandbox, ok):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def is_known(sandbox: Any, ok: Any) -> bool:
    """Tell whether the control plane still has the sandbox."""
    try:
        await ok(sandbox.get_info())
    except (SandboxNotFoundException, NotFoundException):
        return False
    return True


async def until_gone(sandbox: Any, ok: Any, within_s: float) -> None:
    """Return when the sandbox is gone; fail when it is not in time."""
    deadline = time.monotonic() + within_s
    while await ok(sandbox.is_running()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_time_limit_can_be_moved_both_ways(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(timeout=60)
    await ok(sandbox.set_timeout(500))
    later = (await ok(sandbox.get_info())).end_at
    await ok(sandbox.set_timeout(30))
    sooner = (await ok(sandbox.get_info())).end_at
    assert 468 <= (later - sooner).total_seconds() <= 472


async def test_time_limit_of_zero_ends_at_once(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    await ok(sandbox.set_timeout(0))
    await until_gone(sandbox, ok, 3)


async def test_connect_never_shortens(fresh: Any, ok: Any, face: Any, sdk: dict[str, Any]) -> None:
    sandbox = await fresh(timeout=600)
    before = (await ok(sandbox.get_info())).end_at
    other = await ok(face.connect(sandbox.sandbox_id, timeout=10, **sdk))
    assert other.sandbox_id == sandbox.sandbox_id
    assert (await ok(sandbox.get_info())).end_at == before
    await ok(face.connect(sandbox.sandbox_id, timeout=900, **sdk))
    assert (await ok(sandbox.get_info())).end_at > before


async def test_connect_shares_files_and_processes(fresh: Any, ok: Any, face: Any, sdk: dict[str, Any]) -> None:
    sandbox = await fresh()
    await ok(sandbox.files.write("shared.txt", "left here"))
    handle = await ok(sandbox.commands.run("sleep 60", background=True))
    other = await ok(face.connect(sandbox.sandbox_id, **sdk))
    assert await ok(other.files.read("shared.txt")) == "left here"
    assert [process.pid for process in await ok(other.commands.list())] == [handle.pid]


async def test_kill_twice(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    assert await ok(sandbox.kill()) is True
    assert await ok(sandbox.kill()) is False
    assert await ok(sandbox.is_running()) is False


async def test_kill_by_id(fresh: Any, ok: Any, face: Any, api: dict[str, Any]) -> None:
    sandbox = await fresh()
    assert await ok(face.kill(sandbox.sandbox_id, **api)) is True
    assert await ok(face.kill(UNKNOWN, **api)) is False


async def test_a_command_ends_with_its_sandbox(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    handle = await ok(sandbox.commands.run("sleep 100", background=True))
    await ok(sandbox.kill())
    began = time.monotonic()
    with pytest.raises(TimeoutException, match=r"killed or reached|was not found|not running|sandbox timeout"):
        await ok(handle.wait())
    assert time.monotonic() - began < 5


async def test_calls_to_a_dead_sandbox_say_so(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    await ok(sandbox.kill())
    with pytest.raises(TimeoutException, match="was not found"):
        await ok(sandbox.commands.run("true"))
    with pytest.raises(TimeoutException, match="was not found"):
        await ok(sandbox.files.list("."))
    with pytest.raises((TimeoutException, NotFoundException, SandboxException), match="was not found"):
        await ok(sandbox.files.read("a"))
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        await ok(sandbox.set_timeout(10))


async def test_unknown_ids_are_not_found(ok: Any, face: Any, sdk: dict[str, Any], api: dict[str, Any]) -> None:
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        await ok(face.connect(UNKNOWN, **sdk))
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        await ok(face.get_info(UNKNOWN, **api))


async def test_a_wrong_key_is_unauthorized(ok: Any, face: Any, sdk: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationException, match="401"):
        await refused(ok, face, **{**sdk, "api_key": "e2b_" + "0" * 40})


async def refused(ok: Any, face: Any, template: str = "base", **options: Any) -> None:
    """Ask for a sandbox that must not be given; end it should it be given all the same."""
    sandbox = await ok(face.create(template, **options))
    await ok(sandbox.kill())


async def test_an_unknown_template_is_refused(ok: Any, face: Any, sdk: dict[str, Any]) -> None:
    with pytest.raises(SandboxException, match="404: template 'no-such-template' not found"):
        await refused(ok, face, "no-such-template", timeout=60, **sdk)


@pytest.mark.parametrize("timeout", [-1, 10**9, 10**12])
async def test_impossible_time_limits_are_refused(ok: Any, face: Any, sdk: dict[str, Any], timeout: int) -> None:
    with pytest.raises(SandboxException, match=r"400: .*[Tt]imeout"):
        await refused(ok, face, timeout=timeout, **sdk)


async def test_a_sandbox_ends_with_its_block(face: Any, sdk: dict[str, Any], template: str) -> None:
    if face.__name__ == "Sandbox":
        with face.create(template, timeout=60, **sdk) as sandbox:
            assert sandbox.is_running()
        assert sandbox.is_running() is False
    else:
        async with await face.create(template, timeout=60, **sdk) as sandbox:
            assert await sandbox.is_running()
        assert await sandbox.is_running() is False
