"""The sandboxes that this process serves: each one's listener, policy, open flows and what is left of its limits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from corekit.logs import logger
from sandboxes.egress.placeholders import Guard

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator

    from corekit.netrules.policy import Policy
    from sandboxes.egress.authority import Authority
    from sandboxes.egress.flow import Flow
    from sandboxes.egress.resolver import Answer
    from sandboxes.egress.settings import Limits

    Serve = Callable[["Sandbox", socket.socket], Flow]

_ACCEPTED_AT_ONCE = 16
# Refusing costs work too: connections come in at most this much faster than the policy lets flows begin.
_REFUSALS_PER_FLOW = 8
_KNOWN_ANSWERS = 1024


class Bucket:
    """Lets `rate` things happen a second, and up to one second's worth at once."""

    __slots__ = ("_at", "_left", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._left = max(rate, 1.0)
        self._at = now

    def take(self, now: float) -> bool:
        """Use one if there is one."""
        self._left = min(max(self.rate, 1.0), self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def wait_s(self) -> float:
        """Say after how long there is one again."""
        return max(0.0, 1.0 - self._left) / max(self.rate, 1.0)


class Sandbox:
    """One sandbox of one generation."""

    def __init__(
        self, *, ident: str, generation: int, policy: Policy, limits: Limits, authority: Authority | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.id = ident
        self.generation = generation
        self.flows: set[Flow] = set()
        self.active = 0  # connections that lead somewhere
        self.bytes_out = 0
        self.answers: dict[str, tuple[float, Answer]] = {}
        self._lookups: dict[str, asyncio.Task[Answer]] = {}
        self.names = Bucket(limits.names_per_s, loop.time())
        self._limits = limits
        self._loop = loop
        self._listener: socket.socket | None = None
        self._serve: Serve | None = None
        self._accepting = False
        self._resuming: asyncio.TimerHandle | None = None
        self.authority: Authority | None = None
        self.use(policy, authority)

    def use(self, policy: Policy, authority: Authority | None) -> None:
        """Obey this policy from now on."""
        self.policy = policy
        self.guard = Guard(policy) if policy.placeholders else None
        if self.authority != authority:
            self.authority = authority
        now = self._loop.time()
        rate = policy.limits.new_per_s
        self._new = Bucket(rate, now) if rate is not None else None
        self._connections = Bucket(rate * _REFUSALS_PER_FLOW, now) if rate is not None else None

    def admit(self) -> bool:
        """Count a new flow; False when the policy's limits leave no room for it."""
        most = self.policy.limits.flows
        if most is not None and self.active >= most:
            return False
        if self._new is not None and not self._new.take(self._loop.time()):
            return False
        self.active += 1
        return True

    def spend(self, count: int) -> bool:
        """Count bytes on their way out; False when the policy's budget does not cover them."""
        budget = self.policy.limits.bytes_out
        if budget is not None and self.bytes_out + count > budget:
            return False
        self.bytes_out += count
        return True

    def looking_up(self, name: str, resolve: Callable[[str], Coroutine[Any, Any, Answer]]) -> asyncio.Task[Answer]:
        """Return the question for a name that is under way, else begin one."""
        task = self._lookups.get(name)
        if task is None:
            task = self._lookups[name] = asyncio.create_task(resolve(name))
            task.add_done_callback(lambda done: self._looked_up(name, done))
        return task

    def _looked_up(self, name: str, task: asyncio.Task[Answer]) -> None:
        del self._lookups[name]
        if not task.cancelled():
            # The flow that asked may be gone.
            task.exception()

    def remember(self, name: str, until: float, answer: Answer) -> None:
        """Keep a name's addresses as long as its zone allows."""
        if len(self.answers) >= _KNOWN_ANSWERS:
            self.answers.pop(next(iter(self.answers)))
        self.answers[name] = (until, answer)

    def give(self, listener: socket.socket) -> None:
        """Take this listener in place of an earlier one."""
        self._stop_listening()
        listener.settimeout(0)
        self._listener = listener

    @property
    def has_listener(self) -> bool:
        """Tell whether there is a socket to accept on."""
        return self._listener is not None

    def listen(self, serve: Serve) -> None:
        """Accept from now on."""
        self._serve = serve
        self._go_on()

    def _go_on(self) -> None:
        self._resuming = None
        if self._listener is not None and not self._accepting:
            self._accepting = True
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _pause(self, wait_s: float | None) -> None:
        """Leave newcomers in the kernel's queue, which costs nobody else anything."""
        if self._listener is not None and self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener.fileno())
        if wait_s is not None and self._resuming is None:
            self._resuming = self._loop.call_later(wait_s, self._go_on)

    def _most_connections(self) -> int:
        flows = self.policy.limits.flows
        return self._limits.connections if flows is None else 2 * flows + self._limits.spare_connections

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - it is called for a listener only
        assert self._serve is not None  # noqa: S101
        for _ in range(_ACCEPTED_AT_ONCE):
            if len(self.flows) >= self._most_connections():
                self._pause(None)
                return
            if self._connections is not None and not self._connections.take(self._loop.time()):
                self._pause(self._connections.wait_s())
                return
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                logger.warning("egress_accept_failed", sandbox=self.id, error=str(error))
                self._pause(1.0)
                return
            client.settimeout(0)
            self.flows.add(self._serve(self, client))

    def left(self, flow: Flow) -> None:
        """Forget a connection that has ended."""
        self.flows.discard(flow)
        if not self._accepting and self._resuming is None and self._serve is not None:
            self._go_on()

    async def swap(self, policy: Policy, authority: Authority | None) -> None:
        """Obey this policy, and return when the flows that it does not allow are closed."""
        self.use(policy, authority)
        await _end([flow.cut("policy_closed") for flow in tuple(self.flows) if not flow.may_stay()])

    async def close(self) -> None:
        """Stop listening and return when all flows are closed."""
        self._serve = None
        self._stop_listening()
        await _end([flow.cut("sandbox_ended") for flow in tuple(self.flows)])

    def _stop_listening(self) -> None:
        self._pause(None)
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None


async def _end(flows: list[asyncio.Task[None]]) -> None:
    if flows:
        await asyncio.wait(flows)


class Registry:
    """All sandboxes by id. It accepts nothing before it was told of all of them once."""

    def __init__(self, limits: Limits, serve: Serve) -> None:
        self._limits = limits
        self._serve = serve
        self._sandboxes: dict[str, Sandbox] = {}
        self._named: set[str] = set()
        self._synced = False

    def begin(self) -> None:
        """A node begins to list what there is."""
        self._named.clear()

    def flows(self) -> Iterator[Flow]:
        """Return every open flow."""
        for sandbox in tuple(self._sandboxes.values()):
            yield from tuple(sandbox.flows)

    async def put(
        self,
        ident: str,
        generation: int,
        policy: Policy,
        listener: socket.socket | None,
        authority: Authority | None = None,
    ) -> None:
        """Serve a sandbox by this policy. ValueError when it is new and comes without a listener."""
        known = self._sandboxes.get(ident)
        if known is not None and known.generation != generation:
            await self.drop(ident, known.generation)
            known = None
        if known is None:
            if listener is None:
                raise ValueError("a sandbox that is not known yet needs its listener")
            known = Sandbox(ident=ident, generation=generation, policy=policy, limits=self._limits, authority=authority)
            self._sandboxes[ident] = known
        self._named.add(ident)
        if listener is not None:
            known.give(listener)
        await known.swap(policy, authority)
        if self._synced:
            known.listen(self._serve)

    async def drop(self, ident: str, generation: int) -> None:
        """Forget a sandbox; does nothing for another generation of it."""
        known = self._sandboxes.get(ident)
        if known is not None and known.generation == generation:
            del self._sandboxes[ident]
            await known.close()

    async def synced(self) -> None:
        """The node has listed everything: forget what it did not name, and accept."""
        for ident in [ident for ident in self._sandboxes if ident not in self._named]:
            await self.drop(ident, self._sandboxes[ident].generation)
        self._synced = True
        for sandbox in self._sandboxes.values():
            sandbox.listen(self._serve)

    async def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(KeyError):
            while self._sandboxes:
                _, sandbox = self._sandboxes.popitem()
                await sandbox.close()
