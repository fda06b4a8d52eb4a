"""Judge JavaScript and TypeScript: what is loaded, what is called with what, and what stands together."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tree_sitter
import tree_sitter_javascript

from audit.risk.findings import Finding, Span, snippet_of
from audit.risk.javascript.values import HOLE, Values, arguments, bare, callee, nodes, text_of
from audit.risk.places import host_classes, is_root, path_classes, url_host
from audit.risk.positions import in_characters

if TYPE_CHECKING:
    from collections.abc import Callable

    from tree_sitter import Node

    Inner = Callable[[bytes, str, int], list[Finding]]

_LANGUAGE = tree_sitter.Language(tree_sitter_javascript.language())
_TABLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "rules" / "javascript.json").read_bytes())
_RULES: dict[str, dict[str, Any]] = {rule["id"]: rule for rule in _TABLE["rules"]}
_MODULES = {name: rule["id"] for rule in _TABLE["rules"] for name in rule.get("modules", ())}
_NAMES = {name: rule["id"] for rule in _TABLE["rules"] for name in rule.get("names", ())}
_METHODS = {name: rule["id"] for rule in _TABLE["rules"] for name in rule.get("methods", ())}
_TOGETHER = [rule for rule in _TABLE["rules"] if "all" in rule]
_SHELL_CALLS = frozenset(_TABLE["shell_calls"])
_PROGRAM_CALLS = frozenset(_TABLE["program_calls"])
_CODE_CALLS = frozenset(_TABLE["code_calls"])
# Objects of which nobody takes a property by a computed name who has nothing to hide.
_POWERFUL = frozenset({"globalThis", "window", "global", "self", "process", "require", "module", "Reflect"})
_HOSTS = {"metadata": "js.metadata", "address": "js.address", "drop": "js.drop"}
# Expressions that put a text together.
_BUILT = frozenset({"binary_expression", "call_expression", "template_string"})
_HANDS_ON = frozenset({"arguments", "variable_declarator", "pair", "array", "assignment_expression"})


def analyse(code: bytes, inner: Inner) -> list[Finding]:
    """Return what a program does, as far as the table knows."""
    root = tree_sitter.Parser(_LANGUAGE).parse(code).root_node
    scan = _Scan(root, inner)
    # TypeScript's types are no JavaScript: there the tree has gaps, and what stands around them still counts.
    if root.has_error:
        scan.add("js.parse", root)
    for node in nodes(root):
        scan.judge(node)
    scan.together(root)
    return in_characters(scan.findings, code)


class _Scan:
    """One pass over a program."""

    def __init__(self, root: Node, inner: Inner) -> None:
        self.values = Values(root)
        self.findings: list[Finding] = []
        self._inner = inner
        self._seen: set[tuple[str, int]] = set()

    def add(self, rule_id: str, node: Node) -> None:
        if (rule_id, node.start_byte) in self._seen:
            return
        self._seen.add((rule_id, node.start_byte))
        rule = _RULES[rule_id]
        shown = snippet_of(text_of(node))
        self.findings.append(
            Finding(
                rule_id, rule["title"], rule["kind"], rule["weight"], rule["tier"], rule["message"], _span(node), shown
            )
        )

    def together(self, root: Node) -> None:
        """Add what only the combination tells."""
        found = {finding.rule for finding in self.findings}
        for rule in _TOGETHER:
            if all(not found.isdisjoint(group) for group in rule["all"]):
                self.add(rule["id"], root)

    def judge(self, node: Node) -> None:
        kind = node.type
        if kind in {"call_expression", "new_expression"}:
            self._call(node)
            self._place(node)
        elif kind == "import_statement":
            source = self.values.text(node.child_by_field_name("source"))
            self.add(_module(source or ""), node)
        elif kind in {"member_expression", "subscript_expression"}:
            self._member(node)
        elif kind == "identifier":
            rule = _NAMES.get(text_of(node))
            # As a value: handed on, or given another name.
            if rule is not None and node.parent is not None and node.parent.type in _HANDS_ON:
                self.add(rule, node)
        elif kind in {"string", "template_string", "binary_expression"}:
            self._place(node)

    def _member(self, node: Node) -> None:
        name = self.values.name(node)
        rule = _NAMES.get(name) or _NAMES.get(name.removeprefix("[].").removeprefix('"".').removeprefix("()=>."))
        parent = node.parent
        if name.endswith("constructor.constructor"):
            rule = "js.reflect"
        if name == "process.env":
            named = parent is not None and parent.type in {"member_expression", "subscript_expression"}
            taken_apart = (
                parent is not None
                and parent.type == "variable_declarator"
                and "{" in text_of(parent.child_by_field_name("name"))
            )
            rule = "js.environment" if named or taken_apart else "js.environment.all"
        if rule is not None:
            self.add(rule, node)
        elif node.type == "subscript_expression":
            self._subscript(node)

    def _subscript(self, node: Node) -> None:
        owner = self.values.name(node.child_by_field_name("object"))
        index = node.child_by_field_name("index")
        if index is None or index.type == "number":
            return
        key = self.values.text(index)
        powerful = owner in _POWERFUL or owner.partition(".")[0] in _MODULES
        unwritten = key is None or HOLE in key or index.type in _BUILT
        if key == "constructor" or (powerful and unwritten):
            self.add("js.reflect", node)

    def _call(self, node: Node) -> None:
        function, given = callee(node), arguments(node)
        if function is None:
            return
        first = self.values.text(given[0]) if given else None
        if text_of(function) == "require" or function.type == "import":
            self._loaded(node, given, first)
            return
        name = self.values.name(function)
        method = name.rpartition(".")[2] or text_of(function.child_by_field_name("property"))
        rule = _NAMES.get(name) or _METHODS.get(method)
        if rule is not None:
            self.add(rule, node)
        if first is not None and rule == "js.delete" and is_root(first.replace(HOLE, "*")):
            self.add("js.destroy", node)
        if first is not None and rule == "js.dynamic" and method in _CODE_CALLS:
            self._take(self._inner(first.encode("utf-8", "replace"), "javascript", 0), node)
        self._started(node, name, method, given)

    def _loaded(self, node: Node, given: list[Node], module: str | None) -> None:
        if module is None or HOLE in module:
            self.add("js.dynamic", node)
            return
        self.add(_module(module), node)
        if given[0].type in {"identifier", *_BUILT} and _RULES[_module(module)]["tier"] >= "L2":
            # A name in pieces: nobody hides what is harmless.
            self.add("js.reflect", node)

    def _started(self, node: Node, name: str, method: str, given: list[Node]) -> None:
        """Judge the command that a call runs: of a module that starts programs, or of an object that nobody knows."""
        known = _MODULES.get(name.partition(".")[0]) == "js.process"
        if not known and name != method and name:
            return
        first = self.values.text(given[0]) if given else None
        if method in _SHELL_CALLS:
            self._shell(node, first, certain=known)
        elif method in _PROGRAM_CALLS and known:
            listed = given[1].named_children if len(given) > 1 and given[1].type == "array" else None
            words = [first, *map(self.values.text, listed or ())]
            if listed is None and len(given) > 1 and given[1].type != "object":
                words.append(None)
            if "shell: true" in text_of(node):
                self._shell(node, " ".join(word or HOLE for word in words), certain=True)
            elif first is None or HOLE in first:
                self.add("js.process.unresolved", node)
            else:
                line = " ".join('"$UNKNOWN"' if word is None else shlex.quote(word) for word in words)
                self._take(self._inner(line.replace(HOLE, "X").encode(), "bash", 1), node)

    def _shell(self, node: Node, line: str | None, *, certain: bool) -> None:
        if line is None:
            if certain:
                self.add("js.process.unresolved", node)
            return
        found = self._inner(line.replace(HOLE, "$UNKNOWN").encode("utf-8", "replace"), "bash", 1)
        if HOLE in line or any(finding.tier >= "L2" for finding in found):
            self.add("js.process.shell", node)
        self._take(found, node)

    def _take(self, found: list[Finding], node: Node) -> None:
        shown, span = snippet_of(text_of(node)), _span(node)
        self.findings += [replace(finding, span=span, snippet=shown, chain=()) for finding in found]

    def _place(self, node: Node) -> None:
        # The whole of a sum says more than its parts.
        if node.parent is not None and node.parent.type in {"binary_expression", "template_substitution"}:
            return
        text = self.values.text(node)
        if text is None:
            return
        host = url_host(text)
        if host is not None:
            for kind in host_classes(host) & _HOSTS.keys():
                self.add(_HOSTS[kind], node)
            return
        if text.startswith(HOLE + "/."):
            # A hidden file under a folder that is not known: that of a home, most of the time.
            text = "~" + text.removeprefix(HOLE)
        classes = path_classes(text.replace(HOLE, "*"), writing=True) if text.startswith(("/", "~", "../")) else set()
        if classes - {"workspace", "system"}:
            self.add("js.sensitive", node)


def _module(name: str) -> str:
    plain = bare(name)
    if plain.startswith((".", "/")):
        return "js.local"
    return _MODULES.get(plain) or _MODULES.get(plain.split("/")[0]) or "js.module"


def _span(node: Node) -> Span:
    start, end = node.start_point, node.end_point
    return Span(start.row + 1, start.column, end.row + 1, end.column, node.start_byte, node.end_byte)
