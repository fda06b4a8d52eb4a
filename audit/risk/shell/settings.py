"""Variables whose setting makes programs run, load or trust something else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import normal_path
from audit.risk.shell import programs, table
from audit.risk.shell.command import canonical
from audit.risk.shell.values import UNKNOWN

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.judge import Judge
    from audit.risk.shell.values import Value

_HISTORY = frozenset({"HISTFILE", "HISTSIZE", "HISTFILESIZE", "HISTCONTROL"})
# Everybody may put files there.
_OPEN_TO_ALL = re.compile(r"(?:/var)?/tmp(?:/.*)?|/dev/shm(?:/.*)?", re.DOTALL)
_PROMPTS = frozenset({"PS0", "PS1", "PS2", "PS4"})
_NODE_LOADS = re.compile(r"(?:^|\s)(?:-r|--require|--import|--loader|--experimental-loader)\b")


def assigned(judge: Judge, name: str, value: Value, node: Node | None) -> None:
    """Report a variable whose setting runs something, takes the proxy away, or hides what was done."""
    if name in table.PRELOADS:
        judge.report.add("sh.dyn.preload", node, name)
        if value.known and value.text and not name.startswith("LD_"):
            programs.run_shell(judge, value, node, own=False)
    elif name in table.RUNNERS:
        _runner(judge, value, node)
    elif name in table.SEARCH_PATHS:
        if _leads_astray(name, value.text):
            judge.report.add("sh.dyn.preload", node, name)
    elif name == "NODE_OPTIONS" and _NODE_LOADS.search(value.text):
        judge.report.add("sh.dyn.preload", node, name)
    elif name in _PROMPTS and ("$(" in value.text or "`" in value.text):
        programs.run_shell(judge, value, node, own=False, quoted=True)
    elif name in table.PROXIES and not value.text:
        judge.report.add("sh.net.no-proxy", node, name)
    elif name in _HISTORY and value.text in {"", "0", "/dev/null"}:
        judge.report.add("sh.destroy.traces", node, name)


def _runner(judge: Judge, value: Value, node: Node | None) -> None:
    """Judge a variable that holds a command for other programs to run."""
    words = value.text.split()
    if not words or UNKNOWN in words[0] or (canonical(words[0]) in table.VIEWERS and "/" not in words[0]):
        return
    if words[0] in {"ssh", "/usr/bin/ssh"} and not any("command" in word.lower() for word in words):
        return
    judge.report.add("sh.dyn.hidden-shell", node, value.text)
    programs.run_shell(judge, value, node, own=False)


def _leads_astray(name: str, text: str) -> bool:
    """Whether a search path begins where anybody may have put something."""
    first = text.split(":", 1)[0]
    if name == "PATH" and ":" in text and first in {"", "."}:
        return True
    return _OPEN_TO_ALL.fullmatch(normal_path(first)) is not None
