"""The way to the node's spool: an intent is on disk before its act begins, the result follows after it.

Everything runs pipelined over one connection. Without an acknowledgement the act does not happen; results wait
in a bounded queue while the node is away, and the oldest are given up first.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, cast

from corekit import ids
from corekit.logs import logger

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.gateway.settings import Limits

_MAX_LINE = 60 * 1024  # the node takes lines of 64 KiB
_MAX_SENDS = 5
_LONGEST_PAUSE = 1.0
# A result may ride with the next intent: two lines in one write are one sync of the node's disk, not two.
_RESULT_SECONDS = 0.02
_HIGH_WATER = 4 * 1024 * 1024

_COMPACT = json.JSONEncoder(separators=(",", ":"))

Event = dict[str, object]


class TapAway(Exception):
    """The node did not confirm the intent in time. The act must not happen.

    `sent` says that the intent was on its way, so that it may be on record all the same.
    """

    def __init__(self, *, sent: bool = False) -> None:
        super().__init__()
        self.sent = sent


class TapRefused(Exception):
    """The node did not take the intent. `code` is spool_full, unknown_sandbox or bad_event."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Pending:
    """One line that was not answered yet; results have no waiter."""

    __slots__ = ("line", "sends", "waiter")

    def __init__(self, line: bytes, waiter: asyncio.Future[None] | None) -> None:
        self.line = line
        self.waiter = waiter
        self.sends = 0


class Tap(asyncio.Protocol):
    """The client of the tap socket. `run` keeps it connected; `intent` and `result` may be called any time."""

    def __init__(self, socket: Path, limits: Limits) -> None:
        self._socket = socket
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._pending: OrderedDict[int, _Pending] = OrderedDict()
        self._results = 0
        self._next = 1
        self._rest = b""
        self._unsent: list[_Pending] = []
        self._lost = asyncio.Event()
        self._emptied = asyncio.Event()
        self.results_given_up = 0
        self._id = ids.new_event_id()

    # --- the connection

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        pause = 0.02
        while True:
            self._lost.clear()
            try:
                await loop.create_unix_connection(lambda: self, str(self._socket))
            except OSError as error:
                logger.warning("tap_away", reason=type(error).__name__, waiting=len(self._pending))
            else:
                pause = 0.02
                await self._lost.wait()
                logger.warning("tap_lost", waiting=len(self._pending))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  (spreads reconnects)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send again whatever was not confirmed; the event ids tell repeats apart."""
        self._transport = cast("asyncio.Transport", transport)
        self._rest = b""
        self._unsent.clear()
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        for number, pending in list(self._pending.items()):
            if pending.waiter is None and pending.sends >= _MAX_SENDS:
                # Whatever ends the connection each time must not do so for ever.
                logger.error("tap_result_given_up", sends=pending.sends)
                self._forget(number)
                continue
            pending.sends += 1
            self._transport.write(pending.line)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let `run` connect again."""
        self._transport = None
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        """Take the node's answers."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        try:
            if len(self._rest) > _MAX_LINE:
                raise ValueError("an answer is too long")
            for line in lines:
                self._answer(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            logger.error("tap_answer_malformed", reason=type(error).__name__)
            if self._transport is not None:
                self._transport.abort()

    def _answer(self, answer: dict[str, object]) -> None:
        pending = self._forget(answer["n"])
        if pending is None:
            return
        if answer["ok"] is True:
            if pending.waiter is not None and not pending.waiter.done():
                pending.waiter.set_result(None)
            return
        code = str(answer.get("code", "bad_event"))[:64]
        if pending.waiter is None:
            logger.warning("tap_result_refused", code=code)
        elif not pending.waiter.done():
            pending.waiter.set_exception(TapRefused(code))

    def _forget(self, number: object) -> _Pending | None:
        pending = self._pending.pop(number, None) if isinstance(number, int) else None
        if pending is not None and pending.waiter is None:
            self._results -= 1
        if not self._pending:
            self._emptied.set()
        return pending

    # --- what the gateway calls

    async def intent(self, event: Event) -> None:
        """Return once the event is on the node's disk. Raises TapAway or TapRefused."""
        if len(self._pending) - self._results >= self._limits.waiting_intents:
            raise TapAway
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        number = self._queue(event, waiter)
        self._flush()
        timer = loop.call_later(self._limits.intent_seconds, self._expire, number)
        try:
            await waiter
        finally:
            timer.cancel()
            # A client that left must not keep its line waiting for the next connection.
            self._forget(number)

    def _expire(self, number: int) -> None:
        pending = self._forget(number)
        if pending is not None and pending.waiter is not None and not pending.waiter.done():
            pending.waiter.set_exception(TapAway(sent=pending.sends > 0))

    def result(self, event: Event) -> None:
        """Hand over a result; it leaves as soon as the node is there."""
        while self._results >= self._limits.waiting_results:
            oldest = next(number for number, one in self._pending.items() if one.waiter is None)
            self._forget(oldest)
            self.results_given_up += 1
            if self.results_given_up % 1000 == 1:
                logger.error("tap_results_given_up", count=self.results_given_up)
        self._results += 1
        if not self._unsent:
            asyncio.get_running_loop().call_later(_RESULT_SECONDS, self._flush)
        self._queue(event, None)

    def _queue(self, event: Event, waiter: asyncio.Future[None] | None) -> int:
        number = self._next
        self._next += 1
        pending = self._pending[number] = _Pending(self._encode(number, event), waiter)
        self._emptied.clear()
        self._unsent.append(pending)
        return number

    def _encode(self, number: int, event: Event) -> bytes:
        """Return the event's line; the parts that a caller can blow up are left out of one that is too long."""
        counted = {**event, "gateway_id": self._id, "gateway_seq": number}
        line = _COMPACT.encode({"n": number, "event": counted}).encode() + b"\n"
        if len(line) > _MAX_LINE:
            return self._encode(number, {**event, "args_shape": {"…": "too large"}, "details": {}})
        return line

    def _flush(self) -> None:
        if self._transport is not None and self._unsent:
            for pending in self._unsent:
                pending.sends += 1
            self._transport.write(b"".join([pending.line for pending in self._unsent]))
        # Without a connection everything pending goes out when there is one again.
        self._unsent.clear()

    async def settle(self, seconds: float) -> None:
        """Wait until everything is confirmed, at most so long: the last thing before the gateway ends."""
        if self._pending:
            try:
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()
            except TimeoutError:
                logger.error("tap_results_unconfirmed", count=len(self._pending))
