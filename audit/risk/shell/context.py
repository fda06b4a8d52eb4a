"""What all shells of one assessment share: the report, the way to other languages, and how much may still be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit.risk.shell.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.risk.findings import Finding

_MAX_STATEMENTS = 20_000
_MAX_REPEATS = 512
_MAX_INNER = 200
MAX_DEPTH = 4


class Exhausted(Exception):
    """The script is so long or so entangled that the rest was not followed."""


@dataclass(slots=True)
class Context:
    """Shared by a script and all scripts inside it."""

    ask: Callable[[bytes, str, int], list[Finding]]
    report: Report = field(default_factory=Report)
    depth: int = 0
    fed: bool = False
    """Whether a shell reads from a descriptor that was opened elsewhere."""
    ciphered: bool = False
    """Whether files were encrypted whose names only running would tell."""
    _statements: int = 0
    _inner: int = 0
    _repeats: int = 0
    _judged: dict[tuple[str, str], list[Finding]] = field(default_factory=dict)

    def judged(self, code: str, language: str) -> list[Finding]:
        """Return what another language's analyser says of code; the same code in a loop is read once."""
        key = (language, code)
        if key not in self._judged:
            self._judged[key] = self.ask(code.encode("utf-8", "surrogateescape"), language, 1)
        return self._judged[key]

    def spend(self) -> None:
        """Count one statement; raises Exhausted when there were too many."""
        self._statements += 1
        if self._statements > _MAX_STATEMENTS:
            raise Exhausted

    def repeat(self, times: int) -> bool:
        """Count the rounds of a loop; says whether it may still be followed round by round."""
        self._repeats += times
        return self._repeats <= _MAX_REPEATS

    def enter(self) -> bool:
        """Count one script in a string; says whether it may still be followed."""
        self._inner += 1
        return self.depth < MAX_DEPTH and self._inner <= _MAX_INNER
