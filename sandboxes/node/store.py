"""The node's own store: one directory per sandbox with what was asked for and what became of it.

Files are replaced, never rewritten in place, so that a reader after a crash sees the old or the new one. They are not
synced to the platter: they only have to outlive the node process. What a host crash could lose is gone with the host's
processes anyway; events, which must outlive it, are in the spool.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from sandboxes.node.errors import BadRequest
from sandboxes.node.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

State = dict[str, Any]


def write_private(path: Path, data: bytes) -> None:
    """Replace the file by `data`, readable by root alone."""
    fresh = path.with_name(path.name + ".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:  # a disk that is nearly full takes a part first
            view = view[os.write(handle, view) :]
    finally:
        os.close(handle)
    fresh.replace(path)


class Store:
    """Specs and states of the sandboxes that live on this node."""

    def __init__(self, root: Path) -> None:
        self._root = root / "sandboxes"

    def prepare(self) -> None:
        """Make the directories, closed to everybody but root."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write_spec(self, spec: Spec) -> None:
        """Keep what was asked for. The first write is the intent: it comes before any process exists."""
        directory = self._root / spec.id
        directory.mkdir(mode=0o700, exist_ok=True)
        write_private(directory / "spec.json", spec.dump())

    def write_state(self, sandbox_id: str, state: State) -> None:
        """Keep what the runtime made of it."""
        write_private(self._root / sandbox_id / "state.json", json.dumps(state).encode())

    def remove(self, sandbox_id: str) -> None:
        """Forget the sandbox."""
        shutil.rmtree(self._root / sandbox_id, ignore_errors=True)

    def load(self) -> Iterator[tuple[str, Spec | None, State | None]]:
        """Yield each sandbox with its spec and state; None stands for a file that is missing or unreadable."""
        for directory in sorted(self._root.iterdir()):
            yield directory.name, _load_spec(directory), _load_state(directory)


def _load_spec(directory: Path) -> Spec | None:
    try:
        return Spec.load((directory / "spec.json").read_bytes())
    except (OSError, ValueError, BadRequest):
        return None


def _load_state(directory: Path) -> State | None:
    try:
        loaded = json.loads((directory / "state.json").read_bytes())
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None
