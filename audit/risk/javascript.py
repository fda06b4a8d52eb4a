"""Judge JavaScript and TypeScript by a small table: what is loaded, what is called, and on what."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tree_sitter
import tree_sitter_javascript

from audit.risk.findings import Finding, Span, snippet_of
from audit.risk.places import host_classes, path_classes, url_host
from audit.risk.positions import in_characters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tree_sitter import Node

    Inner = Callable[[bytes, str, int], list[Finding]]

_LANGUAGE = tree_sitter.Language(tree_sitter_javascript.language())
_TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "rules" / "javascript.json").read_bytes())
_RULES: dict[str, dict[str, Any]] = {rule["id"]: rule for rule in _TABLE["rules"]}
_MODULES = {name: rule["id"] for rule in _TABLE["rules"] for name in rule.get("modules", ())}
_NAMES = {name: rule["id"] for rule in _TABLE["rules"] for name in rule.get("names", ())}
_METHODS = {name: rule["id"] for rule in _TABLE["rules"] for name in rule.get("methods", ())}
_SHELL_CALLS = frozenset({"exec", "execSync"})


def analyse(code: bytes, inner: Inner) -> list[Finding]:
    """Return what a program does, as far as the table knows."""
    root = tree_sitter.Parser(_LANGUAGE).parse(code).root_node
    found: dict[tuple[str, int], Finding] = {}

    def add(rule_id: str, node: Node) -> None:
        rule = _RULES[rule_id]
        found.setdefault(
            (rule_id, node.start_byte),
            Finding(
                rule=rule_id,
                title=rule["title"],
                kind=rule["kind"],
                weight=rule["weight"],
                tier=rule["tier"],
                message=rule["message"],
                span=_span(node),
                snippet=snippet_of(_text(node)),
            ),
        )

    # TypeScript's types are no JavaScript: there the tree has gaps, and what stands around them still counts.
    if root.has_error:
        add("js.parse", root)
    commands: list[tuple[Node, str]] = []
    for node in _nodes(root):
        for rule_id in _judged(node, commands):
            add(rule_id, node)
    findings = list(found.values())
    for node, command in commands:
        started = inner(command.encode(), "bash", 1)
        findings += [
            replace(finding, span=_span(node), snippet=snippet_of(_text(node)), chain=()) for finding in started
        ]
    return in_characters(findings, code)


def _nodes(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def _judged(node: Node, commands: list[tuple[Node, str]]) -> Iterator[str]:
    kind = node.type
    if kind in {"call_expression", "new_expression"}:
        yield from _called(node, commands)
    elif kind == "import_statement":
        source = node.child_by_field_name("source")
        if source is not None:
            yield _module(_string(source) or "")
    elif kind == "member_expression":
        name = _NAMES.get(_text(node))
        if name is not None:
            yield name
    elif kind == "identifier":
        rule = _NAMES.get(_text(node))
        # As a value: handed on, or given another name.
        if rule is not None and node.parent is not None and node.parent.type in {"arguments", "variable_declarator"}:
            yield rule
    elif kind == "subscript_expression":
        index = node.child_by_field_name("index")
        if index is not None and index.type == "binary_expression":
            yield "js.reflect"
    elif kind == "string":
        yield from _places(_string(node) or "")


def _called(node: Node, commands: list[tuple[Node, str]]) -> Iterator[str]:
    called = node.child_by_field_name("function") or node.child_by_field_name("constructor")
    arguments = node.child_by_field_name("arguments")
    values = arguments.named_children if arguments is not None else []
    first = values[0] if values else None
    constant = _string(first) if first is not None else None
    if called is None:
        return
    name = _text(called)
    if name == "require" or called.type == "import":
        yield _module(constant) if constant is not None else "js.dynamic"
    elif name in _NAMES:
        yield _NAMES[name]
    if called.type == "member_expression":
        method = _text(called.child_by_field_name("property"))
        if method in _METHODS:
            yield _METHODS[method]
        if method in _SHELL_CALLS and constant is not None:
            commands.append((node, constant))
    elif name in _METHODS:
        yield _METHODS[name]
        if name in _SHELL_CALLS and constant is not None:
            commands.append((node, constant))


def _module(name: str) -> str:
    bare = name.removeprefix("node:")
    if bare.startswith((".", "/")):
        return "js.local"
    return _MODULES.get(bare) or _MODULES.get(bare.split("/")[0]) or "js.module"


def _places(text: str) -> Iterator[str]:
    host = url_host(text)
    if host is not None:
        classes = host_classes(host)
        if "metadata" in classes:
            yield "js.metadata"
        if "address" in classes:
            yield "js.address"
    elif text.startswith(("/", "~", "../")) and path_classes(text, writing=True) - {"workspace", "system"}:
        yield "js.sensitive"


def _string(node: Node) -> str | None:
    """Return the text of a constant string, also when it is put together from pieces."""
    if node.type == "string":
        return re.sub(r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})", _escaped, _text(node)[1:-1])
    if node.type == "template_string" and not any(child.type == "template_substitution" for child in node.children):
        return _text(node)[1:-1]
    if node.type == "binary_expression":
        parts = [_string(node.children[0]), _string(node.children[-1])]
        return "".join(part for part in parts if part is not None) if None not in parts else None
    return None


def _escaped(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2], 16))


def _span(node: Node) -> Span:
    start, end = node.start_point, node.end_point
    return Span(start.row + 1, start.column, end.row + 1, end.column, node.start_byte, node.end_byte)


def _text(node: Node | None) -> str:
    return (node.text or b"").decode("utf-8", "replace") if node is not None else ""
