"""One file of the spool: room is written ahead, so that putting an event on disk is one write in place.

Appending to a file makes the file system commit a new length with every sync; overwriting zeros that are already there
does not, which costs a fraction. What was never written reads as zeros and is no line.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT_BYTES = 1024 * 1024
# The writer may need the spare while another thread is still preparing it.
_spare_lock = threading.Lock()


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def prepare_spare(directory: Path) -> None:
    """Write the next segment's zeros, so that no event has to wait for them. Safe to repeat."""
    with _spare_lock:
        _write_spare(directory / "spare")


def _write_spare(spare: Path) -> None:
    if spare.exists():
        return
    fresh = spare.with_name("spare.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, bytes(SEGMENT_BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
    fresh.rename(spare)


def lines_of(path: Path) -> list[bytes]:
    """Return the complete lines of a segment; a torn last one was never acknowledged."""
    return [line for line in path.read_bytes().split(b"\n")[:-1] if line.strip(b"\0")]


class Segment:
    """The segment that is written now."""

    def __init__(self, directory: Path, first_seq: int) -> None:
        """Turn the spare into the segment that begins with `first_seq`; OSError leaves no segment behind."""
        path = directory / f"{first_seq}.jsonl"
        with _spare_lock:
            _write_spare(directory / "spare")
            # A file of the same name holds no event, at most a torn line.
            (directory / "spare").rename(path)
        self._handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.size = 0
        try:
            _sync_directory(directory)
        except OSError:
            self.close()
            raise

    def has_room(self, size: int) -> bool:
        """Tell whether `size` more bytes fit into what was written ahead."""
        return self.size + size <= SEGMENT_BYTES

    def append(self, data: bytes) -> None:
        """Put the bytes on disk; OSError when they may not be there."""
        position, view = self.size, memoryview(data)
        while view:
            written = os.pwrite(self._handle, view, position)
            position, view = position + written, view[written:]
        os.fdatasync(self._handle)
        self.size = position

    def cut(self) -> None:
        """Drop what a failed append may have left, so that it does not come back after a restart."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, self.size)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
