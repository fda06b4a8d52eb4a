"""Judge a piece of code, in this process: which isolation it needs, how risky it is, and why.

Hostile text may keep this busy for long or end the process: other programs go through `audit.risk.pool`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from audit.risk import python, shell
from audit.risk.findings import Finding
from audit.risk.javascript import analyse as analyse_javascript
from audit.risk.scoring import combine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audit.risk.findings import Assessment

    Inner = Callable[[bytes, str, int], list[Finding]]

MAX_CODE = 1_000_000
_MAX_DEPTH = 3
_MAX_INNER = 400
_MAX_SAME_RULE = 10
_MAX_FINDINGS = 200
_ANALYSERS: dict[str, Callable[[bytes, Inner], list[Finding]]] = {
    "python": python.analyse,
    "bash": shell.analyse,
    "javascript": analyse_javascript,
}
_SAME_AS = {
    "python3": "python",
    "py": "python",
    "sh": "bash",
    "shell": "bash",
    "dash": "bash",
    "js": "javascript",
    "node": "javascript",
    "ts": "javascript",
    "typescript": "javascript",
}


def known_language(language: str) -> str:
    """Return the name under which a language is judged; a language nobody knows keeps its own."""
    name = language.strip().lower()
    return _SAME_AS.get(name, name)


def assess(code: bytes, language: str) -> Assessment:
    """Judge code. The same code always gets the same answer; what can't be judged is never called harmless."""
    name = known_language(language)
    return _guarded(name, len(code), lambda inner: _analysed(code, name, inner))


def assess_argv(argv: Sequence[str]) -> Assessment:
    """Judge a command that is started without a shell."""
    return _guarded("argv", sum(map(len, argv)), lambda inner: shell.analyse_argv(argv, inner))


def _guarded(language: str, size: int, work: Callable[[Inner], list[Finding]]) -> Assessment:
    begun = time.perf_counter()
    findings: list[Finding] = []
    unassessable = None
    if size > MAX_CODE:
        unassessable = f"It is longer than {MAX_CODE:,} bytes."
    else:
        try:
            findings = _bounded(work(_Layers().inner(1)))
        except Exception as error:  # noqa: BLE001 - whatever a parser does with hostile text, the caller gets an answer
            unassessable = f"It could not be read ({type(error).__name__})."
    return combine(language, findings, unassessable=unassessable, ms=(time.perf_counter() - begun) * 1000)


def _analysed(code: bytes, language: str, inner: Inner) -> list[Finding]:
    analyser = _ANALYSERS.get(language)
    return [_unknown(language)] if analyser is None else analyser(code, inner)


class _Layers:
    """Code inside code: hands it to the analyser of its language, so deep and so often and no more."""

    def __init__(self) -> None:
        self._left = _MAX_INNER

    def inner(self, level: int) -> Inner:
        """Return what an analyser at this depth calls for code that it found; `depth` is how deep it went itself."""

        def analyse_inner(code: bytes, language: str, depth: int = 0) -> list[Finding]:
            reached = max(level, depth)
            self._left -= 1
            if reached > _MAX_DEPTH or self._left < 0 or len(code) > MAX_CODE:
                return [_TOO_DEEP]
            return _analysed(code, known_language(language), self.inner(reached + 1))

        return analyse_inner


def _bounded(findings: list[Finding]) -> list[Finding]:
    """Keep the first of each rule: a million times the same line must not make a report of a million lines."""
    kept: list[Finding] = []
    seen: dict[str, int] = {}
    for finding in findings:
        count = seen.get(finding.rule, 0)
        if count == 0 or (count < _MAX_SAME_RULE and len(kept) < _MAX_FINDINGS):
            kept.append(finding)
        seen[finding.rule] = count + 1
    return kept


def _unknown(language: str) -> Finding:
    return Finding(
        rule="lang.unknown",
        title="Language without an assessor",
        kind="capability",
        weight=30,
        tier="L2",
        message=f"Nothing here can read {language[:40] or 'this language'}, so it counts as code that starts programs.",
    )


_TOO_DEEP = Finding(
    rule="dyn.depth",
    title="Code nested too deep to follow",
    kind="indicator",
    weight=55,
    tier="L3",
    message=f"Code inside code more than {_MAX_DEPTH} times, or too often.",
)
