"""Events on their way to the control plane: on disk before they are acknowledged, kept until it has committed them.

One append-only file of JSON lines per segment, named after the first sequence number in it. Many events share one
fdatasync (group commit), so that a slow disk costs each event one write, however many wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from sandboxes.node.errors import SpoolFull

if TYPE_CHECKING:
    from pathlib import Path

logger = structlog.get_logger()

Event = dict[str, Any]

# What one sandbox may leave unreported, so that a flood refuses only itself.
SANDBOX_BYTES = 4 * 1024 * 1024
_TOTAL_BYTES = 256 * 1024 * 1024
# An act that was let through must be able to say how it ended: results may pass the quota by this factor.
_ROOM_FOR_RESULTS = 2
_SEGMENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class _Entry:
    seq: int
    sandbox: str
    line: bytes


class Spool:
    """Appends, lists and forgets events. All methods belong to one event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: deque[_Entry] = deque()
        self._unwritten: list[tuple[_Entry, asyncio.Future[int]]] = []
        self._bytes_of: Counter[str] = Counter()
        self._total = 0
        self._next_seq = 1
        self._file = -1
        self._file_bytes = 0
        # After a failed write: nothing may follow what it left in the file.
        self._spoilt = False
        self._flusher: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def open(self) -> None:
        """Read what an earlier run left and begin a new segment. A torn last line was never acknowledged: dropped."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._segments():
            self._next_seq = max(self._next_seq, int(path.stem))
            for line in path.read_bytes().splitlines(keepends=True):
                self._recover(line)
        self._begin_segment(self._next_seq)

    def _recover(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            return
        try:
            event = json.loads(line)
            entry = _Entry(event["seq"], event["sandbox"], line)
        except (ValueError, KeyError, TypeError):
            logger.error("spool_line_unreadable", next_seq=self._next_seq)
            return
        self._remember(entry)
        self._next_seq = max(self._next_seq, entry.seq + 1)

    def _segments(self) -> list[Path]:
        return sorted(self._root.glob("*.jsonl"), key=lambda path: int(path.stem))

    def _begin_segment(self, first_seq: int) -> None:
        """Go on in a new file that holds nothing below `first_seq`; OSError leaves the old one in use."""
        # A file of this name holds no event, at most a torn line.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fresh = os.open(self._root / f"{first_seq}.jsonl", flags, 0o600)
        try:
            directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            os.close(fresh)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._file_bytes, self._spoilt = fresh, 0, False

    def _remember(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._bytes_of[entry.sandbox] += len(entry.line)
        self._total += len(entry.line)

    async def append(self, event: Event, *, fact: bool = False) -> int:
        """Put an event on disk and return its sequence number once it is there.

        SpoolFull when the sandbox's share or the whole spool is used up, or when the disk takes nothing; `fact`s of
        the node itself always fit. ValueError for a number that JSON does not know.
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
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._unwritten.append((entry, written))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush(), name="spool")
        return await written

    def _require_room(self, sandbox: str, size: int, factor: int) -> None:
        if self._bytes_of[sandbox] + size > SANDBOX_BYTES * factor:
            raise SpoolFull(
                "This sandbox has too many unreported events; wait until they are collected.", sandbox=sandbox
            )
        if self._total + size > _TOTAL_BYTES * factor:
            raise SpoolFull("The node's event spool is full; is the worker running?")

    async def _flush(self) -> None:
        while self._unwritten:
            batch, self._unwritten = self._unwritten, []
            try:
                await asyncio.to_thread(self._write, [entry for entry, _ in batch])
            except OSError as error:
                self._fail(batch, error)
                continue
            for entry, written in batch:
                self._entries.append(entry)
                if not written.done():
                    written.set_result(entry.seq)
            self._news.set()

    def _write(self, entries: list[_Entry]) -> None:
        if self._spoilt or self._file_bytes > _SEGMENT_BYTES:
            self._begin_segment(entries[0].seq)
        data = b"".join(entry.line for entry in entries)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        self._file_bytes += len(data)

    def _fail(self, batch: list[tuple[_Entry, asyncio.Future[int]]], error: OSError) -> None:
        logger.error("spool_write_failed", error=str(error))
        self._spoilt = True
        with contextlib.suppress(OSError):  # what was refused must not come back after a restart
            os.ftruncate(self._file, self._file_bytes)
        for entry, written in batch:
            self._forget(entry)
            if not written.done():
                written.set_exception(SpoolFull(f"The node can't write its event spool: {error.strerror}."))

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
        ended: list[Event] = []
        while self._entries and self._entries[0].seq <= upto:
            entry = self._entries.popleft()
            self._forget(entry)
            if b'"sandbox.ended"' in entry.line:
                ended.append(json.loads(entry.line))
        self._drop_segments(upto)
        return ended

    def _drop_segments(self, upto: int) -> None:
        if not self._entries and not self._is_writing and self._file_bytes:
            # All is reported: the empty new segment's name alone carries the numbering on.
            with contextlib.suppress(OSError):  # then it is reported once more after a restart
                self._begin_segment(self._next_seq)
        for path, following in itertools.pairwise(self._segments()):
            if int(following.stem) <= upto + 1:
                path.unlink(missing_ok=True)

    @property
    def _is_writing(self) -> bool:
        # The file belongs to the flusher's thread until it has written what waits.
        return bool(self._unwritten) or (self._flusher is not None and not self._flusher.done())

    async def close(self) -> None:
        """Write what waits and close the file."""
        if self._flusher is not None:
            await self._flusher
        os.close(self._file)
