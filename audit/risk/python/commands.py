"""How Python starts programs: with a shell between or without, and a shell that waits for a person."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from audit.risk.python.values import Value

_SHELLS = re.compile(r"(?:/\S*/)?(?:ba|z|k|c|da|a|tc|fi)?sh|cmd(?:\.exe)?|powershell(?:\.exe)?")


def by_shell(keywords: Mapping[str, Value]) -> bool:
    """Return whether a program is started through a shell, or may be."""
    shell = keywords.get("shell")
    return shell is not None and (True in shell.consts or 1 in shell.consts or not shell.consts)


def is_interactive(words: Sequence[str]) -> bool:
    """Return whether a command is a shell that waits for commands."""
    return bool(words) and _SHELLS.fullmatch(words[0]) is not None and words[1:] in ([], ["-i"], ["-l"], ["-il"])
