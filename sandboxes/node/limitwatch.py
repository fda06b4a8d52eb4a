"""Tells by name which limit a sandbox ran into: memory, or the number of processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.node.cgroups import Cgroup

_LOOK_S = 2.0
# A user counts as being at the limit with this many processes fewer: those of a fork bomb come and go.
_SLACK = 2


class LimitWatch:
    """Calls `report(code, counters)` when a limit struck, within two seconds and at most once for each look.

    It looks instead of being told: on v1 recent kernels announce no refused process, an inotify instance for each
    sandbox would be more than a user may have, and nothing announces that one user of a sandbox has as many processes
    as its share. A look reads three small files.
    """

    def __init__(self, group: Cgroup, report: Callable[[str, dict[str, int]], None]) -> None:
        self._group = group
        self._report = report
        # What an earlier process of the node has reported, or could have.
        self._seen = {"limit.memory": group.oom_kills(), "limit.pids": group.refused_processes()}
        self._user_limit: int | None = None
        self._is_crowded = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch, or go on. Nothing is looked at before, so that a paused sandbox costs nothing."""
        self.close()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self.start()
        self._compare("limit.memory", self._group.oom_kills())
        self._compare("limit.pids", self._group.refused_processes())
        self._look_for_crowd()

    def _compare(self, code: str, count: int) -> None:
        if count > self._seen[code]:
            self._seen[code] = count
            self._report(code, {"count": count})

    def _look_for_crowd(self) -> None:
        if self._user_limit is None:
            self._user_limit = self._group.user_process_limit()
        full = self._user_limit - _SLACK
        was_crowded = self._is_crowded
        # Counting by owner is dear, and needed only where there are enough processes at all.
        self._is_crowded = 0 < full <= self._group.process_count() and full <= self._group.busiest_user()
        if self._is_crowded and not was_crowded:
            self._report("limit.pids", {"count": self._seen["limit.pids"], "user_limit": self._user_limit})

    def close(self) -> None:
        """Stop watching. Safe to repeat."""
        if self._timer is not None:
            self._timer.cancel()
