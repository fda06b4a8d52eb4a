"""The states of a sandbox's row: label, colour, groups and the moves between them.

```
             ┌──────────────────────────────────┐
             ▼                                  │
starting ─► running ◄─► pausing ◄─► paused ◄─► resuming
             └─────────────────────► ▲
each of them ──► ending ──► ended, or ended at once when nothing of it is left
```

`pausing` and `resuming` are intents: written before the node is asked, taken back when it refuses, and carried
out by whoever finds one. `running` becomes `paused` at once when the node paused it on its own, at the end of
its time, and `paused` becomes `pausing` when the node is found to run it.
"""

from __future__ import annotations

from django.db import models

from corekit.states import StateTable


class SandboxState(models.TextChoices):
    """What the control plane knows about a sandbox.

    `starting`: wanted, its reservation is made, the node may or may not have it yet. `running`: the node
    answered that it runs. `pausing`, `resuming`: it is to be paused or to go on, the node has not confirmed
    yet. `paused`: frozen, and its share of concurrency and CPU is parked. `ending`: it must go, the node has
    not confirmed yet. `ended`: gone, and its reservation is released.
    """

    STARTING = "starting", "Starting"
    RUNNING = "running", "Running"
    PAUSING = "pausing", "Pausing"
    PAUSED = "paused", "Paused"
    RESUMING = "resuming", "Resuming"
    ENDING = "ending", "Ending"
    ENDED = "ended", "Ended"


_LAST = (SandboxState.ENDING, SandboxState.ENDED)

TABLE = StateTable(
    {
        SandboxState.STARTING: {SandboxState.RUNNING, *_LAST},
        SandboxState.RUNNING: {SandboxState.PAUSING, SandboxState.PAUSED, *_LAST},
        SandboxState.PAUSING: {SandboxState.RUNNING, SandboxState.PAUSED, *_LAST},
        SandboxState.PAUSED: {SandboxState.PAUSING, SandboxState.RESUMING, *_LAST},
        SandboxState.RESUMING: {SandboxState.RUNNING, SandboxState.PAUSED, *_LAST},
        SandboxState.ENDING: {SandboxState.ENDED},
        SandboxState.ENDED: set(),
    },
    initial=SandboxState.STARTING,
    terminal={SandboxState.ENDED},
)

LIVE = (
    SandboxState.STARTING,
    SandboxState.RUNNING,
    SandboxState.PAUSING,
    SandboxState.PAUSED,
    SandboxState.RESUMING,
    SandboxState.ENDING,
)
"""States that hold a reservation and may hold resources of a node."""

HALTED = (SandboxState.PAUSING, SandboxState.PAUSED)
"""What clients see as paused. Every other live state is running to them: the protocol has no third word."""


class NetworkMode(models.TextChoices):
    """Whether a sandbox has a way out at all: `none` is for its whole life, what is `open` follows its policy."""

    NONE = "none", "None"
    OPEN = "open", "By its policy"


class EndReason(models.TextChoices):
    """Why a sandbox ended, as the node or the control plane names it."""

    KILLED = "killed", "Killed by request"
    EXPIRED = "expired", "Its time was over"
    OUT_OF_MEMORY = "out_of_memory", "Out of memory"
    GUEST_EXITED = "guest_exited", "Its first process ended"
    HOST_REBOOTED = "host_rebooted", "The host was restarted"
    START_FAILED = "start_failed", "It did not start"
    LOST = "lost", "The node lost it"
    QUARANTINED = "quarantined", "It did not match its isolation tier"


class ExecutionState(models.TextChoices):
    """How far an execution is. `starting`: its row is written, its sandbox may or may not be there yet.

    `running`: its sandbox runs the code. `completed`: the code ended, with whatever exit code. `timed_out`: it was
    killed at its time limit. `failed`: Gatehouse could not run it to its end; `reason` says why.
    """

    STARTING = "starting", "Starting"
    RUNNING = "running", "Running"
    COMPLETED = "completed", "Completed"
    TIMED_OUT = "timed_out", "Timed out"
    FAILED = "failed", "Failed"


EXECUTION_ENDS = (ExecutionState.COMPLETED, ExecutionState.TIMED_OUT, ExecutionState.FAILED)

EXECUTION_TABLE = StateTable(
    {
        ExecutionState.STARTING: {ExecutionState.RUNNING, ExecutionState.FAILED},
        ExecutionState.RUNNING: set(EXECUTION_ENDS),
        **{end: set() for end in EXECUTION_ENDS},
    },
    initial=ExecutionState.STARTING,
    terminal=EXECUTION_ENDS,
)
