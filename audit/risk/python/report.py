"""The findings on one file, as they come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from audit.risk.findings import Finding, Tier, higher, snippet_of
from audit.risk.python.rules import RULES_BY_ID, SAME

if TYPE_CHECKING:
    import ast

    from audit.risk.findings import Span
    from audit.risk.python.source import Source

Inner = Callable[[bytes, str, int], list[Finding]]
_MAX_PER_RULE = 10
# Known text inside code is judged on its own; the outer call has been counted already.
_INNER_STRONG, _INNER_WEAK = 0.8, 0.45
_TECHNIQUES = ("py.dyn.", "py.reflect.", "py.text.", "py.deser.", "py.native")
_STRONG = 30
_BESIDE_TECHNIQUE = 0.6


class Report:
    """Findings with their places; each rule counts once for each place."""

    def __init__(self, source: Source, inner: Inner) -> None:
        self.source = source
        self.findings: list[Finding] = []
        self.rules: set[str] = set()
        self._inner = inner
        self._seen: set[tuple[str, Span | None]] = set()
        self._counts: dict[str, int] = {}
        self._inside: dict[tuple[str, str | bytes], Tier] = {}

    def add(self, rule: str, node: ast.AST | None, name: str = "", chain: tuple[ast.AST, ...] = ()) -> None:
        """Add a finding at a node; `chain` leads from where the data came from."""
        if self._counts.get(rule, 0) >= _MAX_PER_RULE:
            return
        places = tuple(span for link in chain if (span := self.source.span(link)) is not None)
        self.add_at(rule, self.source.span(node) if node is not None else None, name, places)

    def add_at(self, rule: str, span: Span | None, name: str = "", chain: tuple[Span, ...] = ()) -> None:
        """Add a finding at a place."""
        if (rule, span) in self._seen:
            return
        self._seen.add((rule, span))
        self._counts[rule] = self._counts.get(rule, 0) + 1
        self.rules.add(rule)
        row = RULES_BY_ID[rule]
        message = row.message.replace("{name}", snippet_of(name) or "a computed name")
        snippet = self.source.snippet(span)
        self.findings.append(Finding(rule, row.title, row.kind, row.weight, row.tier, message, span, snippet, chain))

    def nested(self, code: str | bytes, language: str, node: ast.AST) -> Tier:
        """Judge code found in a constant, count what it finds at the place of the constant, and return its tier."""
        if (language, code) in self._inside:
            return self._inside[language, code]
        self._inside[language, code] = "L2"
        data = code if isinstance(code, bytes) else code.encode("utf-8", "replace")
        try:
            found = self._inner(data, language, 0)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return "L2"
        span = self.source.span(node)
        tier: Tier = "L0"
        for finding in found:
            tier = higher(tier, finding.tier)
            share = _INNER_STRONG if finding.tier == "L3" else _INNER_WEAK
            self._take(replace(finding, weight=round(finding.weight * share), span=span))
        self._inside[language, code] = tier
        return tier

    def escape(self, language: str, text: bytes) -> None:
        """Judge a notebook's line that is no Python."""
        self.add_at("py.magic", None, text.decode("utf-8", "replace"))
        if language == "bash":
            for finding in self._inner(text, "bash", 0):
                self._take(replace(finding, span=None))

    def settle(self) -> None:
        """Count for less what says again what another finding has said."""
        for row in SAME:
            if row["rule"] in self.rules and not self.rules.isdisjoint(row["as"]):
                self._repeated(row)
        self._beside_technique()

    def _repeated(self, row: dict[str, Any]) -> None:
        places = {found.span for found in self.findings if found.rule in row["as"]}
        self.findings = [
            replace(found, weight=round(found.weight * row["share"]))
            if found.rule == row["rule"] and (row["place"] == "any" or found.span in places)
            else found
            for found in self.findings
        ]

    def _beside_technique(self) -> None:
        """Count a plain shell line for less where a technique that hides or reaches it has been counted."""
        techniques = {
            found.rule: found.weight
            for found in self.findings
            if found.tier == "L3" and found.weight >= _STRONG and found.rule.startswith(_TECHNIQUES)
        }
        if not techniques:
            return
        # One way to hide is as bad as the next: the heaviest counts, others beside it less.
        heaviest = max(sorted(techniques), key=techniques.__getitem__)
        lighter = {*techniques} - {heaviest} | {"py.proc.shell.plain"}
        self.findings = [
            replace(found, weight=round(found.weight * _BESIDE_TECHNIQUE)) if found.rule in lighter else found
            for found in self.findings
        ]

    def _take(self, finding: Finding) -> None:
        if self._counts.get(finding.rule, 0) < _MAX_PER_RULE:
            self._counts[finding.rule] = self._counts.get(finding.rule, 0) + 1
            self.rules.add(finding.rule)
            self.findings.append(finding)
