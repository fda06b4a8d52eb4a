"""Texts in other languages than Python's that a library acts on: statements for databases, templates, browsers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import path_classes, url_host
from audit.risk.python import rules
from audit.risk.python.hosts import host_text
from audit.risk.python.values import HOLE, Value

if TYPE_CHECKING:
    import ast

    from audit.risk.python.sinks import Sinks

_MAX_STATEMENT = 8192
_MAX_TEXTS = 8
_FLAGS = re.IGNORECASE | re.DOTALL
_STATEMENTS = [
    (rule, re.compile("|".join(f"(?:{pattern})" for pattern in patterns), _FLAGS))
    for rule, patterns in rules.STATEMENTS.items()
]
# Where in a statement a file may be named, and whether it is then written.
_FILE = re.compile(
    r"\b(?:(?P<write>to|attach(?:\s+database)?|vacuum\s+into|export\s+database)|from|in|import|read_\w+\s*\(|glob\s*\(|scan_\w+\s*\()"
    r"\s*\[?\s*'(?P<path>[^']+)'",
    re.IGNORECASE,
)
_TEMPLATE_CODE = re.compile(r"__\w+__|<%|\$\{[^}]*\b(?:import|open|exec|eval)\b|\{%\s*import\s+os", re.IGNORECASE)
_FOREIGN = frozenset({"input", "net"})


def judge(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge a statement for a database: what it does beside asking, and which files it names."""
    for text in value.texts()[:_MAX_TEXTS]:
        statement = text[:_MAX_STATEMENT]
        for rule, pattern in _STATEMENTS:
            if found := pattern.search(statement):
                sinks.report.add(rule, node, found[0])
        for found in _FILE.finditer(statement):
            _file(sinks, node, found["path"], writing=bool(found["write"]))


def _file(sinks: Sinks, node: ast.AST, path: str, *, writing: bool) -> None:
    if url_host(path):
        sinks.report.add("py.net.client", node, path)
        host_text(sinks, node, url_host(path))
    elif path.startswith(("/", "~", "../")) and not path_classes(path, writing=writing) <= {"workspace"}:
        sinks.path(node, Value(consts=(path,)), writing=writing)


def markup(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge a template: one that somebody else writes may walk anywhere, and some hold code."""
    if any(_TEMPLATE_CODE.search(text) for text in value.texts()):
        sinks.report.add("py.reflect.format", node)
    foreign = value.taints is not None and not _FOREIGN.isdisjoint(value.taints)
    if foreign and (value.open or any(HOLE in text for text in value.texts())):
        sinks.report.add("py.dyn.formula", node)


def browser(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge the name of a browser: a command may stand for it."""
    commands = tuple(text for text in value.texts() if " " in text)
    if commands:
        sinks.report.add("py.proc.shell", node, commands[0])
        sinks.shell(node, Value(consts=commands))
