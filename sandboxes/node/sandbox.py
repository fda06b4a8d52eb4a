"""One sandbox as the keeper has it in memory and on disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandboxes.node.samples import Ring

if TYPE_CHECKING:
    from sandboxes.node.limitwatch import LimitWatch
    from sandboxes.node.runtimes.base import Runtime, State
    from sandboxes.node.spec import Spec
    from sandboxes.node.spool import Event


@dataclass
class Sandbox:
    """One sandbox that lives here. `state` is the runtime's; times are epoch milliseconds.

    `paused_at` is what it is to be, written down before the kernel is asked: a time when it is to stand still, None
    when it is to run. `unreported` are the events about that which are not known to be in the spool yet.
    """

    spec: Spec
    runtime: Runtime
    state: State
    started_at: int
    end_at: int
    attestation: dict[str, Any] = field(default_factory=dict)
    paused_at: int | None = None
    unreported: list[Event] = field(default_factory=list)
    ending: asyncio.Task[str] | None = None
    deadline: asyncio.TimerHandle | None = None
    watch: LimitWatch | None = None
    waiter: asyncio.Task[None] | None = None
    # Held while it is being paused or resumed.
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    samples: Ring = field(default_factory=Ring)
    sampling: int | None = None

    def summary(self) -> dict[str, Any]:
        """Return what the internal API says about it."""
        paused = {} if self.paused_at is None else {"paused_at": self.paused_at}
        return {
            "id": self.spec.id,
            "generation": self.spec.generation,
            "tenant": self.spec.tenant,
            "state": self.condition,
            "started_at": self.started_at,
            "end_at": self.end_at,
        } | paused

    @property
    def condition(self) -> str:
        """Return `running` or `paused`."""
        return "running" if self.paused_at is None else "paused"

    def dump(self) -> State:
        """Return what is kept on disk beside the spec."""
        return {
            "tier": self.spec.tier,
            "started_at": self.started_at,
            "end_at": self.end_at,
            "paused_at": self.paused_at,
            "unreported": self.unreported,
            "runtime": self.state,
            "attestation": self.attestation,
        }

    @classmethod
    def load(cls, spec: Spec, runtime: Runtime, kept: State) -> Sandbox:
        """Read what `dump` wrote. Raises KeyError, TypeError or ValueError when it did not."""
        paused_at = kept.get("paused_at")
        return cls(
            spec=spec,
            runtime=runtime,
            state=kept["runtime"],
            started_at=int(kept["started_at"]),
            end_at=int(kept["end_at"]),
            attestation=kept.get("attestation", {}),
            paused_at=None if paused_at is None else int(paused_at),
            unreported=list(kept.get("unreported", [])),
        )
