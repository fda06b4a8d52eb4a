"""Pausing and resuming through the SDK: by hand, when time is up, and by a call that wakes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from e2b import SandboxState, TimeoutException
from e2b.exceptions import NotFoundException, SandboxException, SandboxNotFoundException


async def test_paused_and_connected_again(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(metadata={"kept": "yes"}, envs={"KEPT": "yes"})
    handle = await ok(sandbox.commands.run("sleep 600", background=True))
    await ok(sandbox.files.write("a", "before"))
    boot = await ok(sandbox.files.read("/proc/sys/kernel/random/boot_id"))
    assert await ok(sandbox.pause()) is True
    assert await ok(sandbox.is_running()) is False
    info = await ok(sandbox.get_info())
    assert (info.state, info.metadata) == (SandboxState.PAUSED, {"kept": "yes"})
    again = await ok(sandbox.connect())
    assert again.sandbox_id == sandbox.sandbox_id
    assert await ok(again.is_running()) is True
    assert (await ok(again.get_info())).state == SandboxState.RUNNING
    assert [process.pid for process in await ok(again.commands.list())] == [handle.pid]
    assert await ok(again.files.read("a")) == "before"
    assert await ok(again.files.read("/proc/sys/kernel/random/boot_id")) == boot
    assert (await ok(again.commands.run("echo $KEPT"))).stdout == "yes\n"


async def test_resuming_gives_the_time_asked_for(fresh: Any, ok: Any, face: Any, sdk: dict[str, Any]) -> None:
    sandbox = await fresh(timeout=60)
    await ok(sandbox.pause())
    began = time.time()
    await ok(face.connect(sandbox.sandbox_id, timeout=400, **sdk))
    end = (await ok(sandbox.get_info())).end_at.timestamp()
    assert began + 399 <= end <= time.time() + 401


async def test_pausing_twice(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    assert await ok(sandbox.pause()) is True
    assert await ok(sandbox.pause()) is False


async def test_a_paused_sandbox_answers_nothing(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    await ok(sandbox.pause())
    with pytest.raises(TimeoutException, match="was not found"):
        await ok(sandbox.commands.run("true"))
    with pytest.raises((SandboxNotFoundException, NotFoundException, SandboxException)):
        await ok(sandbox.set_timeout(10))


async def test_a_paused_sandbox_can_be_killed(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    await ok(sandbox.pause())
    assert await ok(sandbox.kill()) is True
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        await ok(sandbox.connect())


async def test_no_time_passes_while_paused(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(timeout=1)
    await ok(sandbox.pause())
    await asyncio.sleep(1.5)
    assert (await ok(sandbox.get_info())).state == SandboxState.PAUSED
    await ok(sandbox.connect(timeout=60))
    assert await ok(sandbox.is_running()) is True


async def test_a_running_command_goes_on_after_the_pause(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    handle = await ok(sandbox.commands.run("read line; echo got $line", background=True, stdin=True))
    await ok(sandbox.pause())
    again = await ok(sandbox.connect())
    heard = await ok(again.commands.connect(handle.pid))
    await ok(again.commands.send_stdin(handle.pid, "it\n"))
    assert (await ok(heard.wait())).stdout == "got it\n"


async def test_unknown_sandboxes_cannot_be_paused(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    await ok(sandbox.kill())
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        await ok(sandbox.pause())


async def test_pauses_when_its_time_is_up(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(timeout=1, lifecycle={"on_timeout": "pause"})
    await ok(sandbox.files.write("a", "kept"))
    await until_paused(sandbox, ok)
    again = await ok(sandbox.connect(timeout=60))
    assert await ok(again.files.read("a")) == "kept"


async def until_paused(sandbox: Any, ok: Any) -> None:
    """Return when the sandbox is paused; fail when it is not in time."""
    deadline = time.monotonic() + 5
    while (await ok(sandbox.get_info())).state != SandboxState.PAUSED:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_info_tells_what_happens_when_time_is_up(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(lifecycle={"on_timeout": "pause", "auto_resume": True})
    info = await ok(sandbox.get_info())
    assert info.lifecycle == {"on_timeout": "pause", "auto_resume": True}


async def test_wakes_by_itself_when_called(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(timeout=60, lifecycle={"on_timeout": "pause", "auto_resume": True})
    await ok(sandbox.files.write("a", "kept"))
    await ok(sandbox.pause())
    assert await ok(sandbox.files.read("a")) == "kept"
    assert (await ok(sandbox.commands.run("echo awake"))).stdout == "awake\n"
    assert (await ok(sandbox.get_info())).state == SandboxState.RUNNING


async def test_stays_asleep_unless_allowed_to_wake(fresh: Any, ok: Any) -> None:
    sandbox = await fresh(lifecycle={"on_timeout": "pause", "auto_resume": False})
    await ok(sandbox.pause())
    with pytest.raises(TimeoutException, match="was not found"):
        await ok(sandbox.commands.run("true"))
    assert (await ok(sandbox.get_info())).state == SandboxState.PAUSED
