"""After a restart: takes back what still runs, brings it to what was last wished for it, reports what was lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sandboxes.node import linux
from sandboxes.node.pausing import PAUSED, Pausing
from sandboxes.node.sandbox import Sandbox

if TYPE_CHECKING:
    from sandboxes.node.keeper import Keeper
    from sandboxes.node.runtimes.base import State
    from sandboxes.node.spec import Spec

logger = structlog.get_logger()


async def adopt(keeper: Keeper) -> None:
    """Take back what still runs, report the end of what does not, sweep what nobody owns."""
    spooled = keeper.spool.after(0, 10**9)
    for event in spooled:
        if event["code"] == "sandbox.ended":
            keeper.ended[event["sandbox"]] = event
    found: list[Sandbox] = []
    lost: list[tuple[str, Spec | None, str]] = []
    for sandbox_id, spec, kept in keeper.store.load():
        sandbox = _revive(keeper, spec, kept)
        if sandbox is not None:
            found.append(sandbox)
        else:
            lost.append((sandbox_id, spec, _why_lost(kept)))
    await _take_back(keeper, found, {event["id"] for event in spooled})
    for runtime in keeper.runtimes.values():
        for name in await runtime.sweep():
            logger.warning("swept", tier=runtime.tier, name=name)
    for sandbox_id, spec, reason in lost:
        if spec is not None and sandbox_id not in keeper.ended:
            await keeper.report_end(spec, reason)
        keeper.store.remove(sandbox_id)
    logger.info("adopted", sandboxes=len(keeper.sandboxes), lost=len(lost))


def _revive(keeper: Keeper, spec: Spec | None, kept: State | None) -> Sandbox | None:
    if spec is None or kept is None or spec.id in keeper.ended:
        return None
    runtime = keeper.runtimes.get(spec.tier)
    if runtime is None:
        return None
    try:
        sandbox = Sandbox.load(spec, runtime, kept)
        return sandbox if runtime.adopt(sandbox.state) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


async def _take_back(keeper: Keeper, sandboxes: list[Sandbox], spooled: set[str]) -> None:
    pausing = Pausing(keeper)
    await asyncio.gather(*(pausing.settle(sandbox) for sandbox in sandboxes))
    for sandbox in sandboxes:
        reasons = () if sandbox.paused_at is None else (PAUSED,)
        keeper.ways.adopt(sandbox.spec, sandbox.runtime.slot(sandbox.state), *reasons)
        keeper.take_in(sandbox)
        pausing.report(sandbox, spooled)


def _why_lost(kept: State | None) -> str:
    if kept is None:
        return "start_failed"
    runtime = kept.get("runtime")
    if isinstance(runtime, dict) and runtime.get("boot_id") != linux.boot_id():
        return "host_rebooted"
    return "lost"
