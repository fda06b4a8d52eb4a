"""Stops every process of a control group where it stands, and knows that it did."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sandboxes.node.errors import NotFrozen

if TYPE_CHECKING:
    from sandboxes.node.cgroups import Cgroup

# A process that waits for the disk stands still only once it has its data. Callers wait ten seconds for the answer.
_PATIENCE_S = 7.0
_FIRST_LOOK_S = 0.0005
_LONGEST_LOOK_S = 0.02


async def freeze(group: Cgroup) -> None:
    """Return once the kernel says that no process of the group runs. NotFrozen: whatever is there runs on."""
    try:
        await _bring(group, frozen=True)
    except NotFrozen:
        with contextlib.suppress(OSError):
            group.freeze(frozen=False)
        raise


async def thaw(group: Cgroup) -> None:
    """Return once the kernel says that the group's processes may run. NotFrozen: the group is gone."""
    await _bring(group, frozen=False)


async def _bring(group: Cgroup, *, frozen: bool) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_S
    pause = _FIRST_LOOK_S
    try:
        group.freeze(frozen=frozen)
        while group.is_frozen() != frozen:
            if loop.time() > deadline:
                raise NotFrozen(f"The sandbox did not {'stand still' if frozen else 'go on'} in {_PATIENCE_S:g} s.")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_LOOK_S)
    except OSError as error:
        raise NotFrozen("The sandbox's control group is gone.") from error
