"""Stored objects that call something as soon as they are loaded."""

from __future__ import annotations

import pickletools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit.risk.python.values import Constant

_CALLING = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "BUILD", "OBJ", "NEWOBJ"})
_NAMED_CALL = re.compile(r"!!python/|[\"']py/(?:reduce|object|function|type)")


def calls_when_loaded(data: Constant) -> bool:
    """Return whether a pickle, or a YAML or JSON text that stands for objects, names what is to be called."""
    if not isinstance(data, bytes):
        return _NAMED_CALL.search(str(data)) is not None
    try:
        return any(operation.name in _CALLING for operation, _, _ in pickletools.genops(data))
    except (ValueError, IndexError):
        return False
