"""Pause and resume: the intent as a row, the node's act, and the row that says it is done.

Both follow one order: one transaction writes the intent (`pausing` or `resuming`; the latter takes the quota),
then the node is asked, then one transaction writes what came of it (`paused` gives quota back, `running`). Whoever
dies in between leaves the intent, and the reconciler, or the next caller, carries it out: the node takes both calls
twice without harm.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from audit import recording
from corekit import clock
from corekit.errors import GatehouseError
from sandboxes import turns
from sandboxes.errors import NodeSilent, StateDiffers, UnknownAtNode
from sandboxes.models import Sandbox
from sandboxes.states import SandboxState
from tenants import quota

if TYPE_CHECKING:
    from datetime import datetime

    from corekit.actor import Actor
    from sandboxes.node_client import NodeClient

SHORTEST_S = 1
"""What is left at least to a sandbox whose resuming somebody else has to finish."""


def begin_pause(actor: Actor, sandbox: Sandbox, *, reason: str) -> bool:
    """Write down that a running sandbox is to be paused. Returns False, and writes nothing, when it does not run."""
    with turns.write():
        moved = _move(sandbox, SandboxState.RUNNING, SandboxState.PAUSING)
        if moved:
            _record("sandbox.pausing", actor, sandbox, reason=reason)
    return moved


def finish_pause(client: NodeClient, sandbox: Sandbox) -> None:
    """Pause a sandbox whose row is `pausing`, and write that it is.

    Raises UnknownAtNode when it is gone; NodeSilent when the outcome is unknown, and the row stays `pausing`; and
    every other refusal of the node after which the row is `running` again.
    """
    try:
        answer = client.pause(sandbox.pk, sandbox.generation)
    except GatehouseError as error:
        if _was_refused(error):
            with turns.write():
                _move(sandbox, SandboxState.PAUSING, SandboxState.RUNNING)
        raise
    with turns.write():
        write_paused(sandbox, clock.from_ms(answer["paused_at"]))


def write_paused(sandbox: Sandbox, paused_at: datetime) -> bool:
    """Move a `pausing` row to `paused` and park its quota, inside the caller's transaction."""
    moved = _move(sandbox, SandboxState.PAUSING, SandboxState.PAUSED, paused_at=paused_at)
    if moved:
        quota.park(sandbox.pk)
    return moved


def mark_paused_by_node(sandbox: Sandbox, paused_at: datetime, *, ends_by: datetime) -> bool:
    """Move a `running` row to `paused` after the node did it on its own, inside the caller's transaction.

    A row whose end is later than `ends_by` was resumed since then, and stays. Who gets True must park the quota in
    the same transaction.
    """
    rows = Sandbox.everywhere().filter(pk=sandbox.pk, state=SandboxState.RUNNING, end_at__lte=ends_by)
    return bool(rows.update(state=SandboxState.PAUSED, paused_at=paused_at))


def pause_again(sandbox: Sandbox) -> bool:
    """Write down that a sandbox which the node runs although it is `paused` must be paused."""
    with turns.write():
        return _move(sandbox, SandboxState.PAUSED, SandboxState.PAUSING)


def begin_resume(actor: Actor, sandbox: Sandbox, *, ttl_ms: int, reason: str) -> bool:
    """Take the quota and write down that a paused sandbox is to go on for `ttl_ms`.

    Returns False when it is not paused (any more). Raises QuotaExceeded; then nothing was written.
    """
    with turns.write():
        end_at = clock.now() + timedelta(milliseconds=ttl_ms)
        moved = _move(sandbox, SandboxState.PAUSED, SandboxState.RESUMING, end_at=end_at)
        if moved:
            quota.unpark(sandbox.pk)
            _record("sandbox.resuming", actor, sandbox, timeout_ms=ttl_ms, reason=reason)
    return moved


def finish_resume(client: NodeClient, sandbox: Sandbox, *, ttl_ms: int) -> None:
    """Let a sandbox whose row is `resuming` go on, and write that it does.

    One that runs already is extended at most. Raises as `finish_pause`; after a refusal the row is `paused` again and
    its quota given back. Raises StateDiffers when it was paused or ended again meanwhile.
    """
    try:
        answer = client.resume(sandbox.pk, sandbox.generation, ttl_ms)
    except GatehouseError as error:
        if _was_refused(error):
            with turns.write():
                if _move(sandbox, SandboxState.RESUMING, SandboxState.PAUSED):
                    quota.park(sandbox.pk)
        raise
    changes = {"end_at": clock.from_ms(answer["end_at"]), "paused_at": None, "resumed_at": clock.now()}
    with turns.write():
        # Of several callers one was first; the others made its time longer at most.
        moved = _move(sandbox, SandboxState.RESUMING, SandboxState.RUNNING, **changes) or _move(
            sandbox, SandboxState.RUNNING, SandboxState.RUNNING, end_at=changes["end_at"]
        )
    if not moved:
        raise StateDiffers(retry_after=1)


def time_left_ms(sandbox: Sandbox) -> int:
    """Return the time that a `resuming` row was to get and has not used up."""
    left = (sandbox.end_at or clock.now()) - clock.now()
    return max(SHORTEST_S * 1000, left // timedelta(milliseconds=1))


def _was_refused(error: GatehouseError) -> bool:
    return not isinstance(error, NodeSilent | UnknownAtNode)


def _move(sandbox: Sandbox, before: SandboxState, after: SandboxState, **more: object) -> bool:
    rows = Sandbox.everywhere().filter(pk=sandbox.pk, generation=sandbox.generation, state=before)
    moved = bool(rows.update(state=after, **more))
    if moved:
        for name, value in {"state": after, **more}.items():
            setattr(sandbox, name, value)
    return moved


def _record(code: str, actor: Actor, sandbox: Sandbox, **details: object) -> None:
    recording.record(
        code,
        actor=actor,
        object_type="sandbox",
        object_id=sandbox.pk,
        tenant_id=sandbox.tenant_id,
        details=details,
    )
