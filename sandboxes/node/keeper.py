"""Keeps the sandboxes of this host: starts and ends them, watches their limits, adopts them after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from corekit.clock import epoch_ms
from sandboxes.node import adoption, expectation
from sandboxes.node.errors import (
    Ending,
    GenerationConflict,
    NetworkFixed,
    NodeError,
    Paused,
    Quarantined,
    SpoolFull,
    StartFailed,
    TierUnavailable,
    UnknownSandbox,
)
from sandboxes.node.events import Past, fact
from sandboxes.node.limitwatch import LimitWatch
from sandboxes.node.pausing import Pausing
from sandboxes.node.samples import Sampler
from sandboxes.node.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sandboxes.node.admission import Admission
    from sandboxes.node.events import Subject
    from sandboxes.node.routefeed import RouteFeed
    from sandboxes.node.runtimes.base import Runtime, State
    from sandboxes.node.spec import Spec
    from sandboxes.node.spool import Event, Spool
    from sandboxes.node.store import Store
    from sandboxes.node.ways import Ways

logger = structlog.get_logger()

_REPORT_AGAIN_S = 1.0
_CLOSE_TIMEOUT_S = 5.0
_SENTENCES = 20
_SENTENCE_CHARS = 300


@dataclass
class Keeper:
    """All sandboxes of one node. Every method belongs to the node's event loop."""

    node_id: str
    store: Store
    spool: Spool
    feed: RouteFeed
    admission: Admission
    runtimes: dict[str, Runtime]
    ways: Ways
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    starting: dict[str, tuple[Spec, asyncio.Task[Sandbox]]] = field(default_factory=dict)
    ended: dict[str, Event] = field(default_factory=dict)
    sampler: Sampler = field(default_factory=Sampler)
    # Told when the control plane has taken events.
    on_room: Callable[[], None] = lambda: None
    _overflowed: set[str] = field(default_factory=set)
    _background: set[asyncio.Task[Any]] = field(default_factory=set)

    # --- starting

    async def start(self, spec: Spec) -> Sandbox:
        """Start a sandbox; the same id and generation again answers with the one that is there.

        Raises GenerationConflict, TierUnavailable, UnknownBuild, NoRoom or StartFailed. Quarantined is a StartFailed:
        what came up was not what its tier promises. A caller that goes away does not stop a start that has begun.
        """
        if (known := self.sandboxes.get(spec.id)) is not None:
            _require_same(known.spec, spec)
            return known
        if spec.id in self.ended:
            raise GenerationConflict(f"Sandbox {spec.id} has already ended.", id=spec.id)
        if spec.id in self.starting:
            begun, task = self.starting[spec.id]
            _require_same(begun, spec)
        else:
            task = self._begin(spec)
        return await asyncio.shield(task)

    def _begin(self, spec: Spec) -> asyncio.Task[Sandbox]:
        runtime = self._runtime_for(spec)
        promised = [sandbox.spec.resources for sandbox in self.sandboxes.values()]
        promised += [begun.resources for begun, _ in self.starting.values()]
        self.admission.require_room(spec.resources, promised)
        task = self.spawn(self._start(spec, runtime))
        self.starting[spec.id] = (spec, task)
        task.add_done_callback(lambda _: self.starting.pop(spec.id, None))
        return task

    def _runtime_for(self, spec: Spec) -> Runtime:
        runtime = self.runtimes.get(spec.tier)
        if runtime is None:
            raise TierUnavailable(
                f"Tier {spec.tier} is not available on this node.",
                tier=spec.tier,
                fix="Choose another tier; `manage.py doctor` says what this host can run and what the rest needs.",
            )
        if spec.runtime and spec.runtime not in runtime.probe().runtimes:
            raise TierUnavailable(
                f"Runtime {spec.runtime} is not available on this node.",
                tier=spec.tier,
                fix=f"Install {spec.runtime} on the node and start it again, or leave the choice to the node.",
            )
        return runtime

    async def _start(self, spec: Spec, runtime: Runtime) -> Sandbox:
        state: State | None = None
        try:
            self.store.write_spec(spec)
            state = await runtime.start(spec, lambda slot: self.ways.open(spec, slot))
            attestation = expectation.attest(spec, state, runtime.cgroup(state))
            sandbox = self._keep(spec, runtime, state, attestation)
        except BaseException as error:
            await self._clear_failed_start(spec, runtime, state, error)
            if isinstance(error, OSError):
                raise StartFailed(f"The node can't keep the sandbox: {error}.", reason="store") from error
            raise
        self.take_in(sandbox)
        # Not awaited: the caller's answer does not depend on the report, and the spool keeps the order.
        self.spawn(self._report_start(sandbox))
        return sandbox

    async def _report_start(self, sandbox: Sandbox) -> None:
        event = sandbox.unreported[0]
        await self.append(event, lazy=True)
        # On disk it stays until the next change: after a restart the spool or the control plane knows its id.
        sandbox.unreported.remove(event)

    def _keep(self, spec: Spec, runtime: Runtime, state: State, attestation: dict[str, Any]) -> Sandbox:
        latest = self.starting[spec.id][0]
        if latest is not spec:  # a key was revoked meanwhile
            self.store.write_spec(latest)
        now = epoch_ms()
        started = fact("sandbox.started", latest, self.node_id)
        sandbox = Sandbox(latest, runtime, state, now, now + spec.ttl_ms, attestation, unreported=[started])
        self.store.write_state(spec.id, sandbox.dump())
        return sandbox

    async def _clear_failed_start(
        self, spec: Spec, runtime: Runtime, state: State | None, error: BaseException
    ) -> None:
        await self.ways.close(spec.id)
        if state is not None:
            await runtime.stop(state)
            await runtime.discard(state)
        if isinstance(error, Quarantined):
            await self._report_quarantine(spec, error.mismatches)
            return
        cause = error.code if isinstance(error, NodeError) else "internal"
        event = fact("sandbox.ended", spec, self.node_id, reason="start_failed", cause=cause)
        with contextlib.suppress(SpoolFull):  # the caller hears of the failure itself
            await self.spool.append(event, fact=True)
        self.store.remove(spec.id)

    async def _report_quarantine(self, spec: Spec, mismatches: list[str]) -> None:
        logger.error("sandbox_quarantined", sandbox_id=spec.id, mismatches=mismatches)
        told = [sentence[:_SENTENCE_CHARS] for sentence in mismatches[:_SENTENCES]]
        event = fact("sandbox.quarantined", spec, self.node_id, mismatches=told)
        with contextlib.suppress(SpoolFull):  # the end that follows is not given up
            await self.spool.append(event, fact=True)
        await self.report_end(spec, "quarantined")
        self.store.remove(spec.id)

    def take_in(self, sandbox: Sandbox) -> None:
        """Keep a sandbox from now on: its deadline, its limits, its end, the way to it."""
        self.sandboxes[sandbox.spec.id] = sandbox
        sandbox.watch = LimitWatch(sandbox.runtime.cgroup(sandbox.state), self._limit_reporter(sandbox.spec))
        sandbox.waiter = self.spawn(self._watch(sandbox))
        if sandbox.paused_at is None:
            self.start_deadline(sandbox)
            self.look_after(sandbox)
        self.show(sandbox)

    def _limit_reporter(self, spec: Spec) -> Any:
        def report(code: str, details: dict[str, int]) -> None:
            # Counted against the sandbox's share of the spool, since the sandbox decides how often it happens.
            self.spawn(self.spool.append(fact(code, spec, self.node_id, **details)))

        return report

    # --- ending

    async def stop(self, sandbox_id: str, generation: int | None, reason: str = "killed") -> str:
        """End a sandbox and return the reason of its end once every process is gone and the end is on disk.

        Raises UnknownSandbox, or GenerationConflict when the id now belongs to another generation.
        """
        if sandbox_id in self.starting:
            await asyncio.wait([self.starting[sandbox_id][1]])
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None:
            ended = self.ended.get(sandbox_id)
            if ended is not None and generation in (None, ended["generation"]):
                return str(ended["details"]["reason"])
            raise UnknownSandbox(f"There is no sandbox {sandbox_id} here.", id=sandbox_id)
        if generation is not None and generation != sandbox.spec.generation:
            raise GenerationConflict(f"Sandbox {sandbox_id} has another generation.", id=sandbox_id)
        return await asyncio.shield(self._end(sandbox, reason))

    def _end(self, sandbox: Sandbox, reason: str) -> asyncio.Task[str]:
        # The first reason counts: whoever comes later waits for the same end.
        if sandbox.ending is None:
            sandbox.ending = self.spawn(self._carry_out_end(sandbox, reason))
        return sandbox.ending

    async def _carry_out_end(self, sandbox: Sandbox, reason: str) -> str:
        spec = sandbox.spec
        self._let_go(sandbox)
        self.feed.drop(spec.id)
        await asyncio.gather(self.ways.close(spec.id), sandbox.runtime.stop(sandbox.state))
        usage = sandbox.runtime.stats(sandbox.state)
        # Before the report, which may have to wait for a full disk: the sandbox's own disk may be what fills it.
        self.spawn(sandbox.runtime.discard(sandbox.state))
        await self.report_end(spec, reason, cpu_usec=usage.cpu_usec, oom_kills=usage.oom_kills)
        self.sandboxes.pop(spec.id, None)
        self.store.remove(spec.id)
        logger.info("sandbox_ended", sandbox_id=spec.id, reason=reason)
        return reason

    def _let_go(self, sandbox: Sandbox) -> None:
        """Stop looking at a sandbox: its deadline, its limits, its first process."""
        self.stop_deadline(sandbox)
        self.look_away(sandbox)
        if sandbox.waiter is not None:
            sandbox.waiter.cancel()

    async def report_end(self, spec: Spec, reason: str, **details: Any) -> None:
        """Put the end of a sandbox on disk and remember it until the control plane has acknowledged it."""
        event = fact("sandbox.ended", spec, self.node_id, reason=reason, **details)
        await self.append(event)
        self.ended[spec.id] = event

    async def append(self, event: Event, *, lazy: bool = False) -> None:
        """Return when the event is on disk, however long that takes: what it says must not be forgotten."""
        while True:
            try:
                await self.spool.append(event, fact=True, lazy=lazy)
            except SpoolFull:  # the disk takes nothing at the moment
                await asyncio.sleep(_REPORT_AGAIN_S)
            else:
                return

    async def _watch(self, sandbox: Sandbox) -> None:
        end = await sandbox.runtime.wait(sandbox.state)
        logger.warning("guest_gone", sandbox_id=sandbox.spec.id, guest_reported=end.last_words)
        self._end(sandbox, "out_of_memory" if end.out_of_memory else "guest_exited")

    # --- pauses

    async def pause(self, sandbox_id: str, generation: int) -> Sandbox:
        """Stop a sandbox where it stands, memory kept; return it once nothing of it runs. Again is harmless.

        Raises UnknownSandbox, GenerationConflict, Ending, or NotFrozen: then it runs on. A caller that goes away does
        not stop what has begun.
        """
        sandbox = self._require_lasting(sandbox_id, generation)
        await asyncio.shield(self.spawn(Pausing(self).pause(sandbox)))
        return sandbox

    async def resume(self, sandbox_id: str, generation: int, ttl_ms: int) -> Sandbox:
        """Let a paused sandbox go on until `ttl_ms` from now and return it; one that runs is only extended.

        Raises UnknownSandbox, GenerationConflict, Ending or NotFrozen.
        """
        sandbox = self._require_lasting(sandbox_id, generation)
        await asyncio.shield(self.spawn(Pausing(self).resume(sandbox, ttl_ms)))
        return sandbox

    def _require_lasting(self, sandbox_id: str, generation: int) -> Sandbox:
        known = self.sandboxes.get(sandbox_id)
        if known is not None and known.ending is not None and known.spec.generation == generation:
            raise Ending(f"Sandbox {sandbox_id} is ending.", id=sandbox_id)
        return self.require(sandbox_id, generation)

    def save(self, sandbox: Sandbox) -> None:
        """Write down what became of the sandbox. Raises OSError when the disk takes nothing."""
        self.store.write_state(sandbox.spec.id, sandbox.dump())

    def show(self, sandbox: Sandbox) -> None:
        """Tell the gateway how the sandbox is reached now."""
        self.feed.put(sandbox.spec, sandbox.runtime.socket_path(sandbox.state), state=sandbox.condition)

    def look_after(self, sandbox: Sandbox) -> None:
        """Watch the limits of a sandbox that runs, and measure it."""
        if sandbox.watch is not None:
            sandbox.watch.start()
        self.sampler.watch(sandbox)

    def look_away(self, sandbox: Sandbox) -> None:
        """Leave a sandbox alone in which nothing happens. Safe to repeat."""
        if sandbox.watch is not None:
            sandbox.watch.close()
        self.sampler.forget(sandbox)

    # --- deadlines and grants

    def start_deadline(self, sandbox: Sandbox, *, least_s: float = 0.0) -> None:
        """Act at the sandbox's end, but not within the next `least_s` seconds."""
        self.stop_deadline(sandbox)
        delay = max(least_s, (sandbox.end_at - epoch_ms()) / 1000)
        sandbox.deadline = asyncio.get_running_loop().call_later(delay, self._expire, sandbox)

    def stop_deadline(self, sandbox: Sandbox) -> None:
        """Let the sandbox's end pass. Safe to repeat."""
        if sandbox.deadline is not None:
            sandbox.deadline.cancel()

    def _expire(self, sandbox: Sandbox) -> None:
        if sandbox.spec.on_timeout == "pause":
            self.spawn(Pausing(self).expire(sandbox))
        else:
            self._end(sandbox, "expired")

    def move_deadline(self, sandbox: Sandbox, end_at: int) -> None:
        """Let a sandbox that runs end at another time."""
        sandbox.end_at = end_at
        self.start_deadline(sandbox)
        self.save(sandbox)

    def set_deadline(self, sandbox_id: str, generation: int, ttl_ms: int, *, extend_only: bool) -> int:
        """Let the sandbox end `ttl_ms` from now and return when that is; `extend_only` never shortens.

        Raises UnknownSandbox, GenerationConflict, or Paused: then no deadline runs.
        """
        sandbox = self.require(sandbox_id, generation)
        if sandbox.paused_at is not None:
            raise Paused(f"Sandbox {sandbox_id} is paused.", id=sandbox_id)
        end_at = epoch_ms() + ttl_ms
        if not (extend_only and end_at <= sandbox.end_at):
            self.move_deadline(sandbox, end_at)
        return sandbox.end_at

    def grant(self, sandbox_id: str, generation: int, key_id: str, expires_at: int | None) -> None:
        """Open the sandbox to an API key."""
        sandbox = self.require(sandbox_id, generation)
        self._set_grants(sandbox, {**sandbox.spec.grants, key_id: expires_at})

    def revoke_key(self, key_id: str) -> int:
        """Close every sandbox to an API key; return how many were open to it."""
        found = [sandbox for sandbox in self.sandboxes.values() if key_id in sandbox.spec.grants]
        for sandbox in found:
            self._set_grants(sandbox, _without(sandbox.spec.grants, key_id))
        starting = [(spec, task) for spec, task in self.starting.values() if key_id in spec.grants]
        for spec, task in starting:
            self.starting[spec.id] = (spec.with_grants(_without(spec.grants, key_id)), task)
        return len(found) + len(starting)

    async def set_network(
        self, sandbox_id: str, generation: int, document: dict[str, Any], ports: tuple[int, ...] | None
    ) -> int:
        """Let the sandbox reach what the document says, and be reached on `ports`; return the version that is obeyed.

        A document that is older than the one that counts changes nothing: two changes may overtake each other.
        Raises UnknownSandbox, GenerationConflict, NetworkFixed, or EgressUnavailable: then it counts all the same, from
        when egress is there.
        """
        sandbox = self.require(sandbox_id, generation)
        network = sandbox.spec.network
        if network.mode == "none":
            raise NetworkFixed(f"Sandbox {sandbox_id} has no way out, for as long as it lives.", id=sandbox_id)
        if document["version"] >= (network.version or 0):
            sandbox.spec = sandbox.spec.with_network(document, ports)
            self.store.write_spec(sandbox.spec)
            self.show(sandbox)
        return await asyncio.shield(self.spawn(self.ways.change(sandbox.spec)))

    def _set_grants(self, sandbox: Sandbox, grants: dict[str, int | None]) -> None:
        sandbox.spec = sandbox.spec.with_grants(grants)
        self.store.write_spec(sandbox.spec)
        self.show(sandbox)

    def require(self, sandbox_id: str, generation: int | None = None) -> Sandbox:
        """Return a sandbox that runs or is paused; UnknownSandbox or GenerationConflict otherwise."""
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.ending is not None:
            raise UnknownSandbox(f"There is no running sandbox {sandbox_id} here.", id=sandbox_id)
        if generation is not None and generation != sandbox.spec.generation:
            raise GenerationConflict(f"Sandbox {sandbox_id} has another generation.", id=sandbox_id)
        return sandbox

    # --- events

    def witnessed(self, sandbox_id: str, generation: int | None) -> Subject:
        """Return whom a late result is about: a sandbox that runs, ends, or whose end is not yet acknowledged.

        Raises UnknownSandbox, or GenerationConflict when the id belongs to another generation.
        """
        if (sandbox := self.sandboxes.get(sandbox_id)) is not None:
            subject: Subject = sandbox.spec
        elif (ended := self.ended.get(sandbox_id)) is not None:
            subject = Past.of(ended)
        else:
            raise UnknownSandbox(f"There is no sandbox {sandbox_id} here.", id=sandbox_id)
        if generation not in (None, subject.generation):
            raise GenerationConflict(f"Sandbox {sandbox_id} has another generation.", id=sandbox_id)
        return subject

    def report_overflow(self, subject: Subject) -> None:
        """Say that a sandbox's events were refused; once until the next acknowledgement makes room."""
        if subject.id not in self._overflowed:
            self._overflowed.add(subject.id)
            self.spawn(self.spool.append(fact("spool.overflow", subject, self.node_id), fact=True))

    def acknowledge(self, upto: int) -> None:
        """The control plane has committed all events up to `upto`."""
        self._overflowed.clear()
        self.on_room()
        for event in self.spool.acknowledge(upto):
            self.ended.pop(event["sandbox"], None)

    # --- restarts

    async def adopt(self) -> None:
        """Take back what still runs after a restart, report what was lost, sweep what nobody owns."""
        await adoption.adopt(self)

    async def close(self) -> None:
        """Let go of every sandbox without ending it. What has begun is finished, but starts are given up."""
        self._let_all_go()
        for _spec, task in self.starting.values():
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=_CLOSE_TIMEOUT_S)
        self._let_all_go()
        self.sampler.close()

    def _let_all_go(self) -> None:
        for sandbox in self.sandboxes.values():
            if sandbox.ending is None:
                self._let_go(sandbox)

    # --- tasks

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something that nobody need wait for; its failure is logged."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, NodeError):
            logger.error("background_task_failed", error=repr(error), exc_info=error)


def _without(grants: dict[str, int | None], key_id: str) -> dict[str, int | None]:
    return {key: end for key, end in grants.items() if key != key_id}


def _require_same(known: Spec, wanted: Spec) -> None:
    if (known.generation, known.tenant, known.build) != (wanted.generation, wanted.tenant, wanted.build):
        raise GenerationConflict(f"Sandbox {wanted.id} exists with another generation.", id=wanted.id)
