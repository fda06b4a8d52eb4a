"""The pipe on which a member says that it is ready and its guest whatever it likes."""

from __future__ import annotations

import asyncio
import os
from collections import deque

_KEPT_LOG_BYTES = 8_192
_READ_PAUSE_S = 0.05


class LogPipe:
    """The member's stdout and stderr: one line says that it is ready, the end that everybody hung up.

    Only the last few kilobytes are kept, and after the verdict the pipe is read a few times a second, so that a chatty
    guest costs the node neither memory nor time.
    """

    def __init__(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        self.verdict: asyncio.Future[str] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._fd = fd
        self._loop = loop
        self._tail: deque[bytes] = deque()
        self._size = 0
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._on_readable)

    @property
    def text(self) -> str:
        """The end of what was written."""
        return b"".join(self._tail).decode(errors="replace")[-_KEPT_LOG_BYTES:]

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._keep(data)
        if self.verdict.done():
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(_READ_PAUSE_S, self._read_on)
        else:
            self._look_for_verdict()

    def _read_on(self) -> None:
        self._loop.add_reader(self._fd, self._on_readable)

    def _look_for_verdict(self) -> None:
        # The OCI runtime may have written something before.
        written = b"".join(self._tail)
        for line in written.splitlines(keepends=True):
            if line.startswith((b"ready ", b"error ")) and line.endswith(b"\n"):
                self.verdict.set_result(line.decode(errors="replace").strip())
                if line.startswith(b"ready "):  # what follows are the guest's own words
                    self._replace_tail(written.partition(line)[2])
                return

    def _replace_tail(self, data: bytes) -> None:
        self._tail.clear()
        self._size = 0
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._size += len(data)
        while self._size - len(self._tail[0]) > _KEPT_LOG_BYTES:
            self._size -= len(self._tail.popleft())

    def close(self) -> None:
        """Stop reading. Safe to repeat."""
        if self.closed.done():
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if not self.verdict.done():
            self.verdict.set_result("error the member ended without a word")
        self.closed.set_result(None)
