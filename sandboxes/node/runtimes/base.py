"""The contract of a runtime: one class per isolation mechanism, chosen by the tier that a spec names.

A driver reads no settings and no database. What it needs to find a sandbox again is in its *state*, an opaque JSON
object that the keeper stores where no guest can write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.node.cgroups import Cgroup, Stats
    from sandboxes.node.spec import Spec

State = dict[str, Any]


@dataclass(frozen=True)
class Availability:
    """Whether this host can run the tier: by which programs, or why not and what would mend it."""

    available: bool
    runtimes: dict[str, str]
    reason: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Exit:
    """How a sandbox ended by itself. `last_words` is the end of what the guest wrote to its log: its claim, no fact."""

    out_of_memory: bool
    last_words: str


class Runtime(Protocol):
    """What the keeper asks of a mechanism. Methods that take a state may be called for a sandbox that is gone."""

    @property
    def tier(self) -> str:
        """The isolation tier that this mechanism gives."""

    def probe(self) -> Availability:
        """Tell what this host can do. May be called at any time; the answer does not change while the host is up."""

    async def start(self, spec: Spec, open_way: Callable[[int], Awaitable[None]]) -> State:
        """Start a sandbox and return its state once the guest agent answers and `open_way` has returned.

        That is called with the sandbox's slot as soon as it is known, so that nobody waits for one after the other.
        Raises StartFailed, UnknownBuild, TierUnavailable or NoRoom, or what `open_way` does; on failure nothing is left
        behind.
        """

    async def wait(self, state: State) -> Exit:
        """Return when the sandbox's first process is gone, whoever ended it. Safe to cancel."""

    async def pause(self, state: State) -> None:
        """Stop every process where it stands, memory kept; returns once none runs. Again is harmless.

        Raises NotFrozen when that can't be had in time: then all of them run on. It outlives the node, and `stop`,
        `discard`, `adopt` and `stats` work on what is paused.
        """

    async def resume(self, state: State) -> None:
        """Let the processes go on; returns once they may. Again is harmless. Raises NotFrozen as `pause` does."""

    async def stop(self, state: State) -> None:
        """End every process of the sandbox and return when none is left. The guest is never asked."""

    async def discard(self, state: State) -> None:
        """Remove what an ended sandbox leaves: control groups, disk, socket, uid range."""

    def adopt(self, state: State) -> bool:
        """After a node restart: take the sandbox back. False when it no longer runs or is not the same one."""

    async def sweep(self) -> list[str]:
        """After all adoptions: end and remove everything of this mechanism that no adopted sandbox owns."""

    def cgroup(self, state: State) -> Cgroup:
        """Return the sandbox's control group."""

    def stats(self, state: State) -> Stats:
        """Return what the sandbox uses, read from the host's side."""

    def disk_used_bytes(self, state: State) -> int:
        """Return how much of the host's disk the sandbox's own disk takes."""

    def slot(self, state: State) -> int:
        """Return the slot that the sandbox has for as long as anything of it is left."""

    def socket_path(self, state: State) -> str:
        """Return where the guest agent listens, as the gateway connects to it."""
