"""Keeps the sandboxes of this host: starts and ends them, watches their limits, adopts them after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from corekit.clock import epoch_ms
from sandboxes.node import expectation, linux
from sandboxes.node.errors import (
    GenerationConflict,
    NodeError,
    Quarantined,
    SpoolFull,
    StartFailed,
    TierUnavailable,
    UnknownSandbox,
)
from sandboxes.node.events import Past, fact
from sandboxes.node.limitwatch import LimitWatch

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sandboxes.node.admission import Admission
    from sandboxes.node.events import Subject
    from sandboxes.node.routefeed import RouteFeed
    from sandboxes.node.runtimes.base import Runtime, State
    from sandboxes.node.spec import Spec
    from sandboxes.node.spool import Event, Spool
    from sandboxes.node.store import Store

logger = structlog.get_logger()

_REPORT_AGAIN_S = 1.0
_CLOSE_TIMEOUT_S = 5.0
_SENTENCES = 20
_SENTENCE_CHARS = 300


@dataclass
class Sandbox:
    """One sandbox that lives here. `state` is the runtime's; times are epoch milliseconds."""

    spec: Spec
    runtime: Runtime
    state: State
    started_at: int
    end_at: int
    attestation: dict[str, Any] = field(default_factory=dict)
    ending: asyncio.Task[str] | None = None
    deadline: asyncio.TimerHandle | None = None
    watch: LimitWatch | None = None
    waiter: asyncio.Task[None] | None = None

    def summary(self) -> dict[str, Any]:
        """Return what the internal API says about it."""
        return {
            "id": self.spec.id,
            "generation": self.spec.generation,
            "tenant": self.spec.tenant,
            "state": "running",
            "started_at": self.started_at,
            "end_at": self.end_at,
        }

    def dump(self) -> State:
        """Return what is kept on disk beside the spec."""
        return {
            "tier": self.spec.tier,
            "started_at": self.started_at,
            "end_at": self.end_at,
            "runtime": self.state,
            "attestation": self.attestation,
        }


@dataclass
class Keeper:
    """All sandboxes of one node. Every method belongs to the node's event loop."""

    node_id: str
    store: Store
    spool: Spool
    feed: RouteFeed
    admission: Admission
    runtimes: dict[str, Runtime]
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    starting: dict[str, tuple[Spec, asyncio.Task[Sandbox]]] = field(default_factory=dict)
    ended: dict[str, Event] = field(default_factory=dict)
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
        runtime = self.runtimes.get(spec.tier)
        if runtime is None:
            raise TierUnavailable(
                f"Tier {spec.tier} is not available on this node.",
                tier=spec.tier,
                fix="Choose another tier; `manage.py doctor` says what this host can run and what the rest needs.",
            )
        promised = [sandbox.spec.resources for sandbox in self.sandboxes.values()]
        promised += [begun.resources for begun, _ in self.starting.values()]
        self.admission.require_room(spec.resources, promised)
        task = self._spawn(self._start(spec, runtime))
        self.starting[spec.id] = (spec, task)
        task.add_done_callback(lambda _: self.starting.pop(spec.id, None))
        return task

    async def _start(self, spec: Spec, runtime: Runtime) -> Sandbox:
        state: State | None = None
        try:
            self.store.write_spec(spec)
            state = await runtime.start(spec)
            facts = expectation.attest(spec, state, runtime.cgroup(state))
            sandbox = self._keep(spec, runtime, state, facts.as_json())
        except BaseException as error:
            await self._clear_failed_start(spec, runtime, state, error)
            if isinstance(error, OSError):
                raise StartFailed(f"The node can't keep the sandbox: {error}.", reason="store") from error
            raise
        self._take_in(sandbox)
        # Not awaited: the caller's answer does not depend on the report, and the spool keeps the order.
        self._spawn(self.spool.append(fact("sandbox.started", sandbox.spec, self.node_id), fact=True, lazy=True))
        return sandbox

    def _keep(self, spec: Spec, runtime: Runtime, state: State, attestation: dict[str, Any]) -> Sandbox:
        latest = self.starting[spec.id][0]
        if latest is not spec:  # a key was revoked meanwhile
            self.store.write_spec(latest)
        now = epoch_ms()
        sandbox = Sandbox(latest, runtime, state, now, now + spec.ttl_ms, attestation)
        self.store.write_state(spec.id, sandbox.dump())
        return sandbox

    async def _clear_failed_start(
        self, spec: Spec, runtime: Runtime, state: State | None, error: BaseException
    ) -> None:
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
        await self._report_end(spec, "quarantined")
        self.store.remove(spec.id)

    def _take_in(self, sandbox: Sandbox) -> None:
        self.sandboxes[sandbox.spec.id] = sandbox
        self._set_deadline(sandbox, sandbox.end_at)
        sandbox.watch = LimitWatch(sandbox.runtime.cgroup(sandbox.state), self._limit_reporter(sandbox.spec))
        sandbox.waiter = self._spawn(self._watch(sandbox))
        self.feed.put(sandbox.spec, sandbox.runtime.socket_path(sandbox.state))

    def _limit_reporter(self, spec: Spec) -> Any:
        def report(code: str, details: dict[str, int]) -> None:
            # Counted against the sandbox's share of the spool, since the sandbox decides how often it happens.
            self._spawn(self.spool.append(fact(code, spec, self.node_id, **details)))

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
            sandbox.ending = self._spawn(self._carry_out_end(sandbox, reason))
        return sandbox.ending

    async def _carry_out_end(self, sandbox: Sandbox, reason: str) -> str:
        spec = sandbox.spec
        self._let_go(sandbox)
        self.feed.drop(spec.id)
        await sandbox.runtime.stop(sandbox.state)
        usage = sandbox.runtime.stats(sandbox.state)
        # Before the report, which may have to wait for a full disk: the sandbox's own disk may be what fills it.
        self._spawn(sandbox.runtime.discard(sandbox.state))
        await self._report_end(spec, reason, cpu_usec=usage.cpu_usec, oom_kills=usage.oom_kills)
        self.sandboxes.pop(spec.id, None)
        self.store.remove(spec.id)
        logger.info("sandbox_ended", sandbox_id=spec.id, reason=reason)
        return reason

    def _let_go(self, sandbox: Sandbox) -> None:
        """Stop looking at a sandbox: its deadline, its limits, its first process."""
        if sandbox.deadline is not None:
            sandbox.deadline.cancel()
        if sandbox.watch is not None:
            sandbox.watch.close()
        if sandbox.waiter is not None:
            sandbox.waiter.cancel()

    async def _report_end(self, spec: Spec, reason: str, **details: Any) -> None:
        event = fact("sandbox.ended", spec, self.node_id, reason=reason, **details)
        while True:
            try:
                await self.spool.append(event, fact=True)
                break
            except SpoolFull:  # the disk takes nothing at the moment; an end must not be forgotten
                await asyncio.sleep(_REPORT_AGAIN_S)
        self.ended[spec.id] = event

    async def _watch(self, sandbox: Sandbox) -> None:
        end = await sandbox.runtime.wait(sandbox.state)
        logger.warning("guest_gone", sandbox_id=sandbox.spec.id, guest_reported=end.last_words)
        self._end(sandbox, "out_of_memory" if end.out_of_memory else "guest_exited")

    # --- deadlines and grants

    def _set_deadline(self, sandbox: Sandbox, end_at: int) -> None:
        if sandbox.deadline is not None:
            sandbox.deadline.cancel()
        sandbox.end_at = end_at
        delay = max(0.0, (end_at - epoch_ms()) / 1000)
        loop = asyncio.get_running_loop()
        sandbox.deadline = loop.call_later(delay, self._end, sandbox, "expired")

    def set_deadline(self, sandbox_id: str, generation: int, ttl_ms: int, *, extend_only: bool) -> int:
        """Let the sandbox end `ttl_ms` from now and return when that is; `extend_only` never shortens."""
        sandbox = self.require(sandbox_id, generation)
        end_at = epoch_ms() + ttl_ms
        if not (extend_only and end_at <= sandbox.end_at):
            self._set_deadline(sandbox, end_at)
            self.store.write_state(sandbox_id, sandbox.dump())
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

    def _set_grants(self, sandbox: Sandbox, grants: dict[str, int | None]) -> None:
        sandbox.spec = sandbox.spec.with_grants(grants)
        self.store.write_spec(sandbox.spec)
        self.feed.put(sandbox.spec, sandbox.runtime.socket_path(sandbox.state))

    def require(self, sandbox_id: str, generation: int | None = None) -> Sandbox:
        """Return a running sandbox; UnknownSandbox or GenerationConflict otherwise."""
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
            self._spawn(self.spool.append(fact("spool.overflow", subject, self.node_id), fact=True))

    def acknowledge(self, upto: int) -> None:
        """The control plane has committed all events up to `upto`."""
        self._overflowed.clear()
        for event in self.spool.acknowledge(upto):
            self.ended.pop(event["sandbox"], None)

    # --- restarts

    async def adopt(self) -> None:
        """Take back what still runs after a restart, report what was lost, sweep what nobody owns."""
        for event in self.spool.after(0, 10**9):
            if event["code"] == "sandbox.ended":
                self.ended[event["sandbox"]] = event
        lost: list[tuple[str, Spec | None, str]] = []
        for sandbox_id, spec, kept in self.store.load():
            sandbox = self._revive(spec, kept)
            if sandbox is not None:
                self._take_in(sandbox)
            else:
                lost.append((sandbox_id, spec, _why_lost(kept)))
        for runtime in self.runtimes.values():
            for name in await runtime.sweep():
                logger.warning("swept", tier=runtime.tier, name=name)
        for sandbox_id, spec, reason in lost:
            if spec is not None and sandbox_id not in self.ended:
                await self._report_end(spec, reason)
            self.store.remove(sandbox_id)
        logger.info("adopted", sandboxes=len(self.sandboxes), lost=len(lost))

    def _revive(self, spec: Spec | None, kept: State | None) -> Sandbox | None:
        if spec is None or kept is None or spec.id in self.ended:
            return None
        runtime = self.runtimes.get(spec.tier)
        try:
            if runtime is None:
                return None
            sandbox = Sandbox(
                spec, runtime, kept["runtime"], kept["started_at"], kept["end_at"], kept.get("attestation", {})
            )
            return sandbox if runtime.adopt(sandbox.state) else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    async def close(self) -> None:
        """Let go of every sandbox without ending it. Ends that have begun are finished, starts are given up."""
        for sandbox in self.sandboxes.values():
            if sandbox.ending is None:
                self._let_go(sandbox)
        for _spec, task in self.starting.values():
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=_CLOSE_TIMEOUT_S)

    # --- tasks

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
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


def _why_lost(kept: State | None) -> str:
    if kept is None:
        return "start_failed"
    runtime = kept.get("runtime")
    if isinstance(runtime, dict) and runtime.get("boot_id") != linux.boot_id():
        return "host_rebooted"
    return "lost"
