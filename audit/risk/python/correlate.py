"""What only the combination tells: data that flows from a source to a sink, and findings that stand together."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit.risk.python import rules
from audit.risk.python.values import HOLE, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.report import Report
    from audit.risk.python.scopes import Outline
    from audit.risk.python.values import Value

_HUNTED = re.compile(
    r"(?:^|[/*.])(?:id_(?:rsa|dsa|ecdsa|ed25519|\*)|[\w-]*\.?(?:pem|kdbx|keystore|ppk|p12|pfx|ovpn)|wallet(?:\.dat)?|shadow"
    r"|credentials|htpasswd|netrc|pgpass|npmrc|env|aws|gnupg|ssh)$",
    re.IGNORECASE,
)
# Where a downloader puts what it gets.
_SAVED = re.compile(r"\b(?:curl|wget)\b[^|;&]*?\s(?:-[a-zA-Z]*[oO]|--output|--output-document)[ =]?(\S+)")
_MINING = re.compile(r"stratum\+(?:tcp|ssl|tls)://|\bmining\.(?:subscribe|authorize|submit)\b|\bxmrig\b|--donate-level")
# What Python calls on its own, and nobody expects to start programs.
_IMPLICIT = frozenset(
    {
        "__del__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__hash__",
        "__bool__",
        "__len__",
        "__str__",
    }
    | {"__repr__", "__format__", "__bytes__", "__index__", "__int__", "__float__", "__fspath__", "__contains__"}
    | {"__getattr__", "__getattribute__", "__setattr__", "__get__", "__set__", "__set_name__", "__missing__"}
    | {"__init_subclass__", "__class_getitem__", "__instancecheck__", "__subclasscheck__", "__subclasshook__"}
    | {"__prepare__", "__mro_entries__", "__reduce__", "__setstate__", "__add__", "__radd__", "__or__", "__ror__"}
    | {"__and__", "__sub__", "__mul__", "__matmul__", "__mod__", "__neg__", "__invert__", "__rshift__", "__lshift__"}
)
_CLONED = re.compile(r"\bgit clone\b[^;&|]*?[/:]([\w.-]+?)(?:\.git)?(?:\s+(?!-)(\S+))?\s*$")
_SPEAKING = frozenset({"py.net.client", "py.net.socket", "py.proc.argv", "py.proc.shell", "py.proc.shell.plain"})
_STARTS = frozenset({"py.proc.argv", "py.proc.shell", "py.proc.shell.plain", "py.dyn.run", "py.dyn.load"})


@dataclass(slots=True)
class Facts:
    """What the pass over the nodes gathers for the end."""

    outline: Outline
    sinks: list[tuple[str, ast.AST, Mapping[str, ast.AST], Value]] = field(default_factory=list)
    written: dict[str, ast.AST] = field(default_factory=dict)
    fetched: dict[str, ast.AST] = field(default_factory=dict)
    run: dict[str, ast.AST] = field(default_factory=dict)
    commands: list[tuple[str, ast.AST]] = field(default_factory=list)
    # Command lines that may read their standard input, and what is written to one.
    readers: list[str] = field(default_factory=list)
    fed: list[tuple[ast.AST, Value]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    imported: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    # Folders and files that a descriptor stands for.
    opened: list[str] = field(default_factory=list)
    sweeps: set[int] = field(default_factory=set)
    forks: list[ast.AST] = field(default_factory=list)
    # Calls that start programs, and functions that something else calls at a time of its own.
    starts: list[ast.Call] = field(default_factory=list)
    handlers: set[int] = field(default_factory=set)
    reads_itself: bool = False
    executable: ast.AST | None = None
    saved: ast.AST | None = None
    # Something is written to a path that a search found.
    rewritten: ast.AST | None = None

    def sink(self, group: str, node: ast.AST, taints: Mapping[str, ast.AST], first: Value = UNKNOWN) -> None:
        """Record which data reaches a sink."""
        self.sinks.append((group, node, taints, first))


def correlate(facts: Facts, report: Report, ev: Evaluator) -> None:
    """Add the findings that need more than one place."""
    _flows(facts, report)
    _files(facts, report)
    _forks(facts, report)
    _hunts(facts, report, ev)
    _mines(facts, report, ev)
    _unseen(facts, report)
    for row in rules.TOGETHER:
        if all(not report.rules.isdisjoint(group) for group in row["all"]):
            report.add(row["id"], _first_node(facts))


def _flows(facts: Facts, report: Report) -> None:
    for row in rules.FLOWS:
        label, groups = row["flow"]
        if report.rules.isdisjoint(row.get("beside", report.rules)):
            continue
        for group, node, taints, first in facts.sinks:
            if group not in groups or label not in taints:
                continue
            if label == "decoded" and first.consts and not first.open:
                continue  # the text is known, and judged
            if group == "dns" and label in {"file", "encoded"} and not _inside_a_name(first):
                continue
            report.add(row["id"], node, chain=(taints[label], node))


def _unseen(facts: Facts, report: Report) -> None:
    """Find programs that are started where nothing in the text calls for it."""
    for call in facts.starts:
        scope = facts.outline.scope_of.get(id(call))
        while scope is not None and not scope.is_function:
            scope = scope.parent
        if scope is None:
            continue
        method = scope.parent is not None and scope.parent.is_class
        if id(scope) in facts.handlers or (method and getattr(scope.node, "name", "") in _IMPLICIT):
            report.add("py.evade.hook", call)


def _mines(facts: Facts, report: Report, ev: Evaluator) -> None:
    """Look for a miner's words, which a pool is told or a program is started with."""
    if report.rules.isdisjoint(_SPEAKING):
        return
    for text in ev.texts():
        if found := _MINING.search(text):
            report.add("py.net.mining", _first_node(facts), found[0])
            return


def _inside_a_name(value: Value) -> bool:
    return any(isinstance(const, str) and HOLE in const and "." in const for const in value.consts)


def _files(facts: Facts, report: Report) -> None:
    """Files that the program writes or downloads, and then runs."""
    for path, node in facts.fetched.items():
        if starts := _start_of(facts, path):
            report.add("py.both.fetch.run", starts, chain=(node, starts))
    for line, fetcher in facts.commands:
        saved = _SAVED.search(line)
        if saved and (starts := _start_of(facts, _bare(saved[1]), but=line)):
            report.add("py.both.fetch.run", starts, chain=(fetcher, starts))
    for line, fetcher in facts.commands:
        cloned = _CLONED.search(line)
        folder = _bare(cloned[2] or cloned[1]) if cloned else ""
        starting = re.compile(rf"(?:^|[;&|]\s*|\b(?:sh|bash|python3?|source|\.)\s+)(?:\./)?{re.escape(folder)}/\S")
        if folder and (starts := next((node for text, node in facts.commands if starting.search(text)), None)):
            report.add("py.both.fetch.run", starts, chain=(fetcher, starts))
    downloaded = facts.saved is not None or bool(facts.fetched)
    if downloaded and facts.executable is not None and not report.rules.isdisjoint(_STARTS):
        report.add("py.both.fetch.run", facts.executable)
    for path, node in facts.written.items():
        starts = _start_of(facts, path)
        if starts is None:
            continue
        report.add("py.both.write.run", starts, chain=(node, starts))
        if facts.saved is not None:
            report.add("py.both.fetch.run", starts, chain=(facts.saved, starts))
        for text in facts.texts[:20]:
            report.nested(text, "bash" if path.endswith(".sh") else "python", node)


def _bare(path: str) -> str:
    return path.strip("'\"").removeprefix("./")


def _start_of(facts: Facts, path: str, but: str = "") -> ast.AST | None:
    if len(path) < 2 or HOLE in path or "*" in path:
        return None
    if path in facts.run:
        return facts.run[path]
    for text, node in facts.commands:
        if text != but and path in text.replace("'", " ").replace("./", "").split():
            return node
    if path.endswith(".py"):
        if path[:-3] in facts.imported:
            return facts.outline.module.node
        asked = f"-m {path[:-3]}"
        return next((node for text, node in facts.commands if f"{text} ".find(f"{asked} ") >= 0), None)
    return None


def _hunts(facts: Facts, report: Report, ev: Evaluator) -> None:
    """A walk over everybody's files, and names of credentials in the text."""
    if facts.rewritten is not None and facts.reads_itself:
        report.add("py.self.spread", facts.rewritten)
    if "py.fs.sweep" not in report.rules:
        return
    if facts.rewritten is not None:
        report.add("py.both.sweep.write", facts.rewritten)
    for node in ast.walk(facts.outline.module.node):
        if isinstance(node, ast.expr) and any(map(_HUNTED.search, ev.value(node).texts())):
            report.add("py.fs.hunt", node)


def _forks(facts: Facts, report: Report) -> None:
    if "py.proc.fork" not in report.rules:
        return
    for call in facts.forks:
        if _endless(facts.outline, call):
            report.add("py.both.fork.loop", call)


def _endless(outline: Outline, call: ast.AST) -> bool:
    for loop in outline.endless:
        if any(part is call for part in ast.walk(loop)):
            return True
    scope = outline.scope_of.get(id(call))
    # A function that starts itself again.
    while scope is not None:
        name = getattr(scope.node, "name", None)
        if name and any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(scope.node)):
            return True
        scope = scope.parent
    return False


def _first_node(facts: Facts) -> ast.AST | None:
    return facts.sinks[0][1] if facts.sinks else None
