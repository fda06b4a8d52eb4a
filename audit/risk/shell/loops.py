"""Loops and functions that start more and more, until nothing else can run."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

    from audit.risk.shell.judge import Judge

_ENDLESS = re.compile(
    rb"(?:while\s+(?:true|:|\[+\s*1\s*\]+|\(\(\s*1\s*\)\))|until\s+false)\s*[;\n]|for\s*\(\(\s*;\s*;\s*\)\)"
)
_PAUSES = re.compile(rb"\b(?:sleep|wait|read|inotifywait|accept|flock|sem|break|exit|return|jobs)\b|\bnc\b|-l")
# They use all of a processor and never end.
_BURNS = re.compile(
    rb"\byes\b|/dev/(?:zero|u?random)|while\s+(?::|true)\s*;\s*do\s+(?::|true)\s*;\s*done|stress(?:-ng)?\b"
)
_STARTS_ITSELF = re.compile(r"(?:\$0|\$\{0\}|\$BASH_SOURCE)[\"']?\s*(?:&(?!&)|\|\s*[\"']?\$0)")


def is_endless(node: Node) -> bool:
    """Whether a loop's own condition never ends it."""
    return _ENDLESS.match(node.text or b"") is not None


def watch_loop(judge: Judge, node: Node) -> None:
    """Report a loop without end that starts things in the background and waits for nothing."""
    watch_burners(judge, node)
    if b"&" not in (node.text or b"") or not is_endless(node):
        return
    started = list(_in_background(node))
    waits = node.text or b""
    for child in started:
        waits = waits.replace(child.text or b"", b"")
    if started and not _PAUSES.search(waits):
        judge.report.add("sh.destroy.fork-bomb", node)


def watch_burners(judge: Judge, node: Node) -> None:
    """Report a loop that starts in the background, again and again, what never ends."""
    if b"&" in (node.text or b"") and any(_BURNS.search(child.text or b"") for child in _in_background(node)):
        judge.report.add("sh.destroy.fork-bomb", node)


def starts_itself(text: str) -> bool:
    """Whether a script starts itself in the background, or twice in one pipeline."""
    return _STARTS_ITSELF.search(text) is not None


def watch_bomb(judge: Judge, name: str, body: Node, node: Node) -> None:
    """Report a function that starts itself more than once at a time."""
    if (body.text or b"").count(name.encode()) == 0:
        return
    if _multiplies(body, name.encode()):
        judge.report.add("sh.destroy.fork-bomb", node)


def _in_background(node: Node) -> Iterator[Node]:
    waiting = [node]
    while waiting:
        children = waiting.pop().children
        yield from (child for child, after in pairwise(children) if after.type == "&")
        waiting += children


def _multiplies(body: Node, name: bytes) -> bool:
    """Whether a function starts itself in the background, or twice in one pipeline: each start makes more of it."""
    if any(_calls(child, name) for child in _in_background(body)):
        return True
    waiting = [body]
    while waiting:
        node = waiting.pop()
        children = node.children
        if node.type == "pipeline" and sum(_calls(child, name) for child in children) > 1:
            return True
        waiting += children
    return False


def _calls(node: Node, name: bytes) -> bool:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current.type == "command_name" and current.text == name:
            return True
        waiting += current.children
    return False
