"""A process that knows keys and secrets keeps its memory to itself."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4  # by linux/prctl.h


def keep_private() -> None:
    """Let no other process of this user look into this one, and leave no core of it. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("the process can't be made undumpable")
