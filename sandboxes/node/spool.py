"""Events on their way to the control plane: on disk before they are acknowledged, kept until it has committed them.

Segments of JSON lines, each named after the first sequence number in it. Many events share one fdatasync (group
commit), so that a slow disk costs each event one write, however many wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from sandboxes.node.errors import SpoolFull
from sandboxes.node.segment import Segment, lines_of, prepare_spare
from sandboxes.node.store import write_private

if TYPE_CHECKING:
    from pathlib import Path

logger = structlog.get_logger()

Event = dict[str, Any]

# What one sandbox may leave unreported, so that a flood refuses only itself.
SANDBOX_BYTES = 4 * 1024 * 1024
_TOTAL_BYTES = 256 * 1024 * 1024
# An act that was let through must be able to say how it ended: results may pass the quota by this factor.
_ROOM_FOR_RESULTS = 2
# How long an event that nobody waits for may wait for company on its way to the disk.
_LAZY_S = 0.01


@dataclass(frozen=True)
class _Entry:
    seq: int
    sandbox: str
    line: bytes


Written = Callable[[int, SpoolFull | None], None]
_Waiting = tuple[_Entry, Written]


class Spool:
    """Appends, lists and forgets events. All methods belong to one event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: deque[_Entry] = deque()
        self._unwritten: list[_Waiting] = []
        self._bytes_of: Counter[str] = Counter()
        self._total = 0
        self._next_seq = 1
        self._acknowledged = 0
        self._segment: Segment | None = None
        # After a failed write: nothing may follow what it left in the file.
        self._spoilt = False
        # One thread writes, the other one writes room ahead.
        self._writer = ThreadPoolExecutor(2, thread_name_prefix="spool")
        self._flushing: asyncio.Future[None] | None = None
        self._news = asyncio.Event()

    def open(self) -> None:
        """Read what an earlier run left and begin a new segment."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(OSError, ValueError):
            self._acknowledged = int((self._root / "acknowledged").read_bytes())
        self._next_seq = self._acknowledged + 1
        for path in self._segments():
            self._next_seq = max(self._next_seq, int(path.stem))
            for line in lines_of(path):
                self._recover(line)
        self._segment = Segment(self._root, self._next_seq)
        self._writer.submit(self._prepare_spare)

    def _recover(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            entry = _Entry(event["seq"], event["sandbox"], line + b"\n")
        except (ValueError, KeyError, TypeError):
            logger.error("spool_line_unreadable", next_seq=self._next_seq)
            return
        if entry.seq > self._acknowledged:
            self._remember(entry)
        self._next_seq = max(self._next_seq, entry.seq + 1)

    def _segments(self) -> list[Path]:
        return sorted(self._root.glob("*.jsonl"), key=lambda path: int(path.stem))

    def _remember(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._bytes_of[entry.sandbox] += len(entry.line)
        self._total += len(entry.line)

    async def append(self, event: Event, *, fact: bool = False, lazy: bool = False) -> int:
        """Put an event on disk and return its sequence number once it is there. Raises as `put` does.

        SpoolFull also when the disk takes nothing.
        """
        on_disk: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def written(seq: int, refusal: SpoolFull | None) -> None:
            if on_disk.done():
                return
            if refusal is None:
                on_disk.set_result(seq)
            else:
                on_disk.set_exception(refusal)

        self.put(event, written, fact=fact, lazy=lazy)
        return await on_disk

    def put(self, event: Event, written: Written, *, fact: bool = False, lazy: bool = False) -> None:
        """Send an event on its way to the disk; `written` is told its number once it is there, or why it is not.

        SpoolFull at once when the sandbox's share or the whole spool is used up; `fact`s of the node itself always
        fit. ValueError for a number that JSON does not know. A `lazy` event waits for company.
        """
        seq = self._next_seq
        line = json.dumps({**event, "seq": seq}, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        if not fact:
            self._require_room(event["sandbox"], len(line), _ROOM_FOR_RESULTS if event["phase"] == "result" else 1)
        self._next_seq += 1
        entry = _Entry(seq, event["sandbox"], line)
        # Counted from now on, so that a burst can't pass the quota between here and the disk.
        self._bytes_of[entry.sandbox] += len(line)
        self._total += len(line)
        self._unwritten.append((entry, written))
        loop = asyncio.get_running_loop()
        if lazy:
            loop.call_later(_LAZY_S, self._start_flush)
        else:
            # Not at once: what comes in the same turn of the loop shares the sync.
            loop.call_soon(self._start_flush)

    def _start_flush(self) -> None:
        if not self._unwritten or self._flushing is not None:
            return
        batch, self._unwritten = self._unwritten, []
        loop = asyncio.get_running_loop()
        self._flushing = loop.run_in_executor(self._writer, self._write, [entry for entry, _ in batch])
        self._flushing.add_done_callback(lambda done: self._flushed(batch, done.exception()))

    def _flushed(self, batch: list[_Waiting], error: BaseException | None) -> None:
        self._flushing = None
        if error is not None:
            self._fail(batch, error)
        else:
            for entry, written in batch:
                self._entries.append(entry)
                written(entry.seq, None)
            self._news.set()
        self._start_flush()

    def _require_room(self, sandbox: str, size: int, factor: int) -> None:
        if self._bytes_of[sandbox] + size > SANDBOX_BYTES * factor:
            raise SpoolFull(
                "This sandbox has too many unreported events; wait until they are collected.", sandbox=sandbox
            )
        if self._total + size > _TOTAL_BYTES * factor:
            raise SpoolFull("The node's event spool is full; is the worker running?")

    def _write(self, entries: list[_Entry]) -> None:
        data = b"".join(entry.line for entry in entries)
        segment = self._segment
        if segment is None or self._spoilt or (segment.size and not segment.has_room(len(data))):
            fresh = Segment(self._root, entries[0].seq)
            if segment is not None:
                segment.close()
            self._segment = segment = fresh
            self._spoilt = False
            self._writer.submit(self._prepare_spare)
        segment.append(data)

    def _prepare_spare(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the next segment tries again and says so
            prepare_spare(self._root)

    def _fail(self, batch: list[_Waiting], error: BaseException) -> None:
        logger.error("spool_write_failed", error=str(error))
        cause = error.strerror if isinstance(error, OSError) else type(error).__name__
        self._spoilt = True
        if self._segment is not None:
            self._segment.cut()
        for entry, written in batch:
            self._forget(entry)
            written(entry.seq, SpoolFull(f"The node can't write its event spool: {cause}."))

    def _forget(self, entry: _Entry) -> None:
        self._bytes_of[entry.sandbox] -= len(entry.line)
        if self._bytes_of[entry.sandbox] <= 0:
            del self._bytes_of[entry.sandbox]
        self._total -= len(entry.line)

    def after(self, seq: int, limit: int) -> list[Event]:
        """Return up to `limit` events with a higher sequence number, oldest first."""
        found: list[Event] = []
        for entry in self._entries:
            if entry.seq > seq:
                found.append(json.loads(entry.line))
                if len(found) == limit:
                    break
        return found

    async def wait_after(self, seq: int, timeout_s: float) -> None:
        """Return when an event with a higher number is there, or after `timeout_s` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (not self._entries or self._entries[-1].seq <= seq) and loop.time() < deadline:
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return

    @property
    def last_seq(self) -> int:
        """The highest number on disk; 0 when nothing was ever written."""
        return self._entries[-1].seq if self._entries else self._next_seq - 1

    def acknowledge(self, upto: int) -> list[Event]:
        """Forget events up to and including `upto`; return those of the node about ends (`sandbox.ended`)."""
        upto = min(upto, self.last_seq)
        ended: list[Event] = []
        while self._entries and self._entries[0].seq <= upto:
            entry = self._entries.popleft()
            self._forget(entry)
            if b'"sandbox.ended"' in entry.line and (event := json.loads(entry.line))["code"] == "sandbox.ended":
                ended.append(event)
        if upto > self._acknowledged:
            self._acknowledged = upto
            with contextlib.suppress(OSError):  # then they are reported once more after a restart
                write_private(self._root / "acknowledged", str(upto).encode())
            self._drop_segments()
        return ended

    def _drop_segments(self) -> None:
        for path, following in itertools.pairwise(self._segments()):
            if int(following.stem) <= self._acknowledged + 1:
                path.unlink(missing_ok=True)

    async def close(self) -> None:
        """Write what waits and close the file."""
        self._start_flush()
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        self._writer.shutdown()
        if self._segment is not None:
            self._segment.close()
