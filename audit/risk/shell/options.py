"""Options through which a tool starts other commands, loads code, or reads a script of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import normal_path
from audit.risk.shell import programs, table
from audit.risk.shell.values import EMPTY, Value, Word

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge

_USUAL = frozenset(
    {"ssh", "gzip", "xz", "zstd", "pigz", "bzip2", "lz4", "rsync", "pbzip2", "plzip", "lbzip2", "zstdmt"}
)
_REMOTE_RUNS = re.compile(r"^\s*(?:proxy|local|knownhosts|remote)command[\s=]+(.*)", re.IGNORECASE | re.MULTILINE)
# Lines that start something, in the scripts of editors, debuggers, databases and the like.
_RUNS = re.compile(
    r"(?:^|[\s:|()+])(?:!|\.?shell\b|\.system\b|\\!|platform shell|shell-command|call-process|start-process|run-shell"
    r"|if-shell|execute_process\s*\(\s*COMMAND|python3?x?\b|py3x?\b|pyx?\b|lua\b|perl\b|ruby\b|term(?:inal)?\b|pipe\b"
    r"|call\s+system\s*\(|system\s*\(|system\s|script\b|exec\s)\s*(.*)"
)
_SHARED_CODE = re.compile(r"\bload_extension\s*\(|^\s*\.load\b|\blibcallnr?\(", re.MULTILINE)


def judge(judge: Judge, command: Command, node: Node | None) -> None:
    """Report what a command's options start, load, or read as a script."""
    for flag in table.STARTS.get(command.name, ()):
        for word in command.values(flag):
            _start(judge, command, word, node)
    for flag in table.LOADS.get(command.name, ()):
        for word in command.values(flag):
            judge.report.add("sh.dyn.preload", node, word.text)
    for flag in table.SCRIPTS.get(command.name, ()):
        for word in command.values(flag):
            content = judge.walker.state.files.get(normal_path(judge.walker.state.located(word.text)), EMPTY)
            script(judge, content, node)


def _start(judge: Judge, command: Command, word: Word, node: Node | None) -> None:
    first = word.text.split(" ")[0]
    if first in _USUAL and "command" not in word.text.lower():
        return
    judge.report.add("sh.dyn.hidden-shell", node, word.text)
    line = word.text.replace(",", " ") if command.name == "gcc" else word.text
    programs.run_shell(judge, Value(line.lstrip("!|"), word.taints), node, own=False)


def script(judge: Judge, content: Value, node: Node | None) -> None:
    """Judge the text of a script in a tool's own language, line by line."""
    if _SHARED_CODE.search(content.text):
        judge.report.add("sh.dyn.preload", node)
    for line in content.text.splitlines()[:200]:
        found = _REMOTE_RUNS.match(line) or _RUNS.search(line)
        if found:
            judge.report.add("sh.dyn.hidden-shell", node, line)
            programs.run_shell(judge, Value(found[1].strip("\"')( ")), node, own=False, quoted=True)


def passed_on(command: Command) -> list[Word] | None:
    """Return the command that a verb of a tool starts, as in `poetry run pytest`; None when it has no such verb."""
    verbs = table.VERBS.get(command.name)
    if verbs is None:
        return None
    words = list(command.arguments)
    for place, word in enumerate(words[:8]):
        if word.text in verbs:
            return _after(command, words[place + 1 :], verbs[word.text])
    return None


def _after(command: Command, words: list[Word], skip: int) -> list[Word]:
    takes = table.VALUES.get(command.name, frozenset())
    ends = next((place for place, word in enumerate(words) if word.text == "--"), -1)
    if ends != -1:
        return words[ends + 1 :]
    while words and (words[0].text.startswith("-") or skip or "=" in words[0].text):
        word = words.pop(0)
        if word.text.startswith("-"):
            if word.text in takes and words:
                words.pop(0)
        elif "=" not in word.text:
            skip -= 1
    return words
