"""Tells by name which limit a sandbox ran into: memory, or the number of processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.node.cgroups import Cgroup

_QUIET_S = 1.0
_READ_BYTES = 65_536


class LimitWatch:
    """Calls `report(code, counters)` when the kernel struck; at most once a second for each limit."""

    def __init__(self, group: Cgroup, report: Callable[[str, dict[str, int]], None]) -> None:
        self._group = group
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._fds: list[int] = []
        self._quiet: dict[str, asyncio.TimerHandle] = {}
        self._reported = {"limit.memory": 0, "limit.pids": 0}
        for code, open_watch in (("limit.memory", group.watch_memory), ("limit.pids", group.watch_processes)):
            with contextlib.suppress(OSError):  # a kernel without the file: metrics still count it
                fd = open_watch()
                self._fds.append(fd)
                self._loop.add_reader(fd, self._struck, code, fd)

    def _struck(self, code: str, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, _READ_BYTES)
        # Not even listened to meanwhile: a fork bomb strikes thousands of times a second.
        self._loop.remove_reader(fd)
        self._quiet[code] = self._loop.call_later(_QUIET_S, self._listen_again, code, fd)
        self._speak(code)

    def _listen_again(self, code: str, fd: int) -> None:
        del self._quiet[code]
        self._loop.add_reader(fd, self._struck, code, fd)
        self._speak(code)

    def _speak(self, code: str) -> None:
        stats = self._group.stats()
        count = stats.oom_kills if code == "limit.memory" else stats.pids_refused
        if count > self._reported[code]:
            self._reported[code] = count
            self._report(code, {"count": count})

    def close(self) -> None:
        """Stop watching. Safe to repeat."""
        for fd in self._fds:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._fds.clear()
        for timer in self._quiet.values():
            timer.cancel()
        self._quiet.clear()
