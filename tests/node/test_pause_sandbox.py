"""A paused sandbox stands still with all that it holds, costs no time and no CPU, and goes on where it stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from corekit.clock import epoch_ms
from tests.node import rig

if TYPE_CHECKING:
    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = "setsid -f bash -c 'while :; do echo $((++n)) > /tmp/count; done'"


def cpu_usec(sandbox: Sandbox) -> int:
    """Return the CPU time that the sandbox has had."""
    return sandbox.runtime.stats(sandbox.state).cpu_usec


async def test_it_stands_still_and_goes_on(clean_node: Rig) -> None:
    sandbox = await clean_node.start("alice")
    await clean_node.run(sandbox, f"echo kept > note; {COUNT}")
    pids = clean_node.pids(sandbox)
    before = epoch_ms()

    paused = await clean_node.keeper.pause("alice", 1)
    assert paused is sandbox
    assert before <= (sandbox.paused_at or 0) <= epoch_ms()
    used = cpu_usec(sandbox)
    await asyncio.sleep(0.2)
    assert (cpu_usec(sandbox), clean_node.pids(sandbox)) == (used, pids)
    assert sandbox.summary()["state"] == "paused"

    await clean_node.keeper.resume("alice", 1, 60_000)
    assert (await clean_node.run(sandbox, "cat note; pgrep -fc 'while :'")).stdout == "kept\n1\n"
    await rig.eventually(lambda: cpu_usec(sandbox) > used)
    assert set(pids) <= set(clean_node.pids(sandbox))
    assert sandbox.summary()["state"] == "running"
    assert clean_node.codes("alice") == ["sandbox.started", "sandbox.paused", "sandbox.resumed"]
