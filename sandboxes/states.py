"""The states of a sandbox's row: label, colour, groups and the moves between them.

```
starting ──► running ──► ending ──► ended
    │            └─────────────────►  ▲
    ├──────────────────► ending ──────┤
    └─────────────────────────────────┘
```
"""

from __future__ import annotations

from django.db import models

from corekit.states import StateTable


class SandboxState(models.TextChoices):
    """What the control plane knows about a sandbox.

    `starting`: wanted, its reservation is made, the node may or may not have it yet. `running`: the node
    answered that it runs. `ending`: it must go, the node has not confirmed yet. `ended`: gone, and its
    reservation is released.
    """

    STARTING = "starting", "Starting"
    RUNNING = "running", "Running"
    ENDING = "ending", "Ending"
    ENDED = "ended", "Ended"


TABLE = StateTable(
    {
        SandboxState.STARTING: {SandboxState.RUNNING, SandboxState.ENDING, SandboxState.ENDED},
        SandboxState.RUNNING: {SandboxState.ENDING, SandboxState.ENDED},
        SandboxState.ENDING: {SandboxState.ENDED},
        SandboxState.ENDED: set(),
    },
    initial=SandboxState.STARTING,
    terminal={SandboxState.ENDED},
)

LIVE = (SandboxState.STARTING, SandboxState.RUNNING, SandboxState.ENDING)
"""States that hold a reservation and may hold resources of a node."""


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
