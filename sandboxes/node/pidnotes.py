"""Notes about processes that outlive the one that started them: which process it is, not only its number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandboxes.node import linux
from sandboxes.node.store import write_private

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, pid: int) -> None:
    """Note the process down."""
    note = {"pid": pid, "start_time": linux.process_start_time(pid), "boot_id": linux.boot_id()}
    write_private(path, json.dumps(note).encode())


def running(path: Path) -> int | None:
    """Return the pid of the process that was noted down, or None when that one does not run any more."""
    try:
        note = json.loads(path.read_bytes())
        pid, start_time, boot_id = int(note["pid"]), int(note["start_time"]), note["boot_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if boot_id != linux.boot_id():
        return None
    return pid if linux.process_start_time(pid) == start_time else None
