"""One connection of a sandbox, from the moment that it is accepted until both of its ends are closed."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from typing import TYPE_CHECKING

from corekit.logs import logger
from corekit.netrules.reasons import Reason
from sandboxes.egress.events import Fact
from sandboxes.egress.refusals import Refused, answer
from sandboxes.egress.securewire import SecureWire
from sandboxes.egress.wire import Gone, Wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from sandboxes.egress.passage import Passage
    from sandboxes.egress.registry import Sandbox
    from sandboxes.egress.services import Services
    from sandboxes.egress.target import Target


# What a flow is told that is cut before it was connected; other ends are no refusals.
_REFUSED_FOR = {
    "limit": Reason.LIMIT,
    "connect": Reason.CONNECT_FAILED,
    "policy_closed": Reason.POLICY_CLOSED,
    "cannot_rewrite": Reason.CANNOT_REWRITE,
}
_SHOWN_CALLS = 4


Stream = Wire | SecureWire
"""One end of a flow, whether its bytes come as they are or out of TLS."""


class Flow:
    """Owns both sockets, and is what limits and policies end."""

    def __init__(
        self, services: Services, sandbox: Sandbox, sock: socket.socket, serve: Callable[[Flow], Awaitable[str]]
    ) -> None:
        self.services = services
        self.sandbox = sandbox
        self.server: Stream | None = None
        self.passage: Passage | None = None
        self.asked: Target | None = None
        self.via = "proxy"
        self.method: str | None = None
        # Whether the client still reads an HTTP answer where the next bytes would go.
        self.can_answer = True
        self._loop = asyncio.get_running_loop()
        self.client: Stream = Wire(services.poller, sock, self._loop)
        self._last = self._began = self._loop.time()
        self._deadline: float | None = None
        self._overrun = "limit"
        self._cut: str | None = None
        self._how = "reset"
        self._task = asyncio.create_task(self._run(serve))
        self._task.add_done_callback(self._ended)

    def allow(self, seconds: float, overrun: str = "limit") -> None:
        """Give what comes next so long; `overrun` is how the flow ends else."""
        self._deadline = self._loop.time() + seconds
        self._overrun = overrun

    async def next_begins(self) -> bool:
        """Wait for another request on the connection; False when the client has ended it."""
        self.allow(self.idle_seconds(), "idle")
        return bool(self.client.ahead) or await self.client.more()

    def run_on(self) -> None:
        """Let it last as long as something moves."""
        self._deadline = None
        self._last = self._loop.time()

    def now(self) -> float:
        """The time of the loop."""
        return self._loop.time()

    def idle_seconds(self) -> float:
        """How long nothing may move."""
        idle = self.sandbox.policy.limits.idle_s
        return self.services.settings.limits.idle_seconds if idle is None else idle

    def count_out(self, size: int) -> bool:
        """Count bytes to the server; False when the budget is used up."""
        self._last = self._loop.time()
        return self.passage is not None and self.passage.count_out(size)

    def count_in(self, size: int) -> bool:
        """Count bytes to the sandbox."""
        self._last = self._loop.time()
        return self.passage is not None and self.passage.count_in(size)

    def check(self, now: float) -> None:
        """End what took too long; called every second."""
        if self._deadline is not None:
            if now > self._deadline:
                self.cut(self._overrun)
        elif now - self._last > self.idle_seconds():
            self.cut("idle")
        if self.passage is not None:
            self.passage.check_age(now)

    def may_stay(self) -> bool:
        """Tell whether the policy that holds now lets it go on."""
        return self.passage is None or self.passage.may_stay()

    def cut(self, how: str) -> asyncio.Task[None]:
        """End it at once; the task is done when both sockets are closed."""
        self._cut = self._cut or how
        self._task.cancel()
        return self._task

    def end_passage(self, how: str) -> None:
        """End the connection to the server and record it."""
        if self.server is not None:
            (self.server.close if how == "done" else self.server.reset)()
            self.server = None
        if self.passage is not None:
            self.passage.end(how)
            self.passage = None

    async def _run(self, serve: Callable[[Flow], Awaitable[str]]) -> None:
        try:
            self._how = await serve(self)
        except Refused as refusal:
            self._refuse(refusal)
        except Gone:
            return
        except asyncio.CancelledError:
            self._stopped()
        except Exception as error:  # noqa: BLE001 - what is wrong with one flow must not open or end another one
            # Where it happened, and not what it says: that may be a header that a secret was put into.
            where = traceback.format_tb(error.__traceback__)[-_SHOWN_CALLS:]
            logger.error("egress_flow_failed", sandbox=self.sandbox.id, error=type(error).__name__, where=where)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A callback, not `finally`: a task that is cancelled before its first step runs nothing of its own.
        how = self._cut or self._how
        self.end_passage(how)
        if how == "done":
            self.client.close()
        else:
            self.client.reset()
        self.sandbox.left(self)

    def _stopped(self) -> None:
        """Record the end of what was never connected; a passage that was is recorded as closed."""
        reason = _REFUSED_FOR.get(self._cut or "")
        if self.server is None and reason is not None:
            self._refuse(Refused(reason))

    def _refuse(self, refusal: Refused) -> None:
        if self.server is not None:
            over_budget = refusal.reason is Reason.LIMIT
            self.end_passage("limit" if over_budget else "reset" if refusal.reason is Reason.CONNECT_FAILED else "done")
            if over_budget:
                return
        details = self._details(refusal)
        if refusal.detail is not None:
            details["detail"] = refusal.detail
        if self.passage is not None:
            self.passage.give_back()
            self.passage = None
        self.services.outbox.refuse(
            Fact(
                sandbox=self.sandbox.id,
                generation=self.sandbox.generation,
                code="egress.denied",
                decision="deny",
                reason=refusal.reason,
                outcome="refused",
                duration_ms=(self._loop.time() - self._began) * 1e3,
                details=details,
            )
        )
        if self.can_answer:
            # Small enough for any socket's buffer; a client that left it full is not waited for.
            with contextlib.suppress(OSError):
                self.client.send_at_once(answer(refusal, None if self.asked is None else self.asked.entry))
                self._how = "done"

    def _details(self, refusal: Refused) -> dict[str, object]:
        if self.passage is not None:
            return self.passage.details()
        return {
            "host": None if self.asked is None else self.asked.name,
            "port": None if self.asked is None else self.asked.port,
            "rule": refusal.rule,
            "layer": refusal.layer,
            "policy_version": self.sandbox.policy.version,
            "via": self.via,
            "method": self.method,
        }
