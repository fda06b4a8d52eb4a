"""Collects findings, with the place in the outermost script that each stands for."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from audit.risk.findings import Finding, Span, snippet_of
from audit.risk.shell.table import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tree_sitter import Node

_MAX_SAME_RULE = 10


class Report:
    """The findings so far. Inside code that stood in a string, places are those of the command that ran it."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._seen: set[tuple[str, int]] = set()
        self._counts: dict[str, int] = {}
        self._anchor: Node | None = None

    def add(self, rule_id: str, node: Node | None, detail: str = "") -> None:
        """Add a finding of a rule; the same rule at the same place counts once."""
        if self._counts.get(rule_id, 0) >= _MAX_SAME_RULE:
            return
        key = (rule_id, self._offset(node))
        if key in self._seen:
            return
        self._seen.add(key)
        span, snippet = self.place(node)
        self._counts[rule_id] = self._counts.get(rule_id, 0) + 1
        rule = RULES[rule_id]
        message = f"{rule.message} ({snippet_of(detail)})" if detail else rule.message
        self.findings.append(Finding(rule.id, rule.title, rule.kind, rule.weight, rule.tier, message, span, snippet))

    def count(self, rule_id: str) -> int:
        """Return how often a rule matched so far."""
        return self._counts.get(rule_id, 0)

    def take(self, found: Iterable[Finding], node: Node | None) -> None:
        """Add what the analyser of another language found in the code that stands at a place here."""
        span, snippet = self.place(node)
        for finding in found:
            key = (finding.rule, span.offset if span else -1)
            if key not in self._seen:
                self._seen.add(key)
                self.findings.append(replace(finding, span=span, snippet=finding.snippet or snippet, chain=()))

    @contextmanager
    def anchored(self, node: Node | None) -> Iterator[None]:
        """Within this, places are the node's: what is read now stands inside one of its strings."""
        before = self._anchor
        if before is None and node is not None:
            self._anchor = node
        try:
            yield
        finally:
            self._anchor = before

    def _offset(self, node: Node | None) -> int:
        node = self._anchor or node
        return node.start_byte if node is not None else -1

    def place(self, node: Node | None) -> tuple[Span | None, str]:
        """Return the span and the text that a finding at a node shows."""
        node = self._anchor or node
        return _place(node) if node is not None else (None, "")


def _place(node: Node) -> tuple[Span, str]:
    text = (node.text or b"").decode("utf-8", "replace")
    start, end = node.start_point, node.end_point
    return Span(start.row + 1, start.column, end.row + 1, end.column, node.start_byte, node.end_byte), snippet_of(text)
