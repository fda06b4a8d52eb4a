"""Ruleset `seed-v1`: the commission's additive risk rules, as data. The gateway uses it: no Django here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NAME = "seed-v1"
CEILING = 100
DANGEROUS_TOOLS = frozenset({"execute_sql", "exec_code", "write_file"})
DANGEROUS_TOOL_POINTS = 30
SENSITIVE_WORDS = ("password", "secret", "key", "token")
SENSITIVE_WORD_POINTS = 20
SENSITIVE_PATHS = ("/etc", "/root", "/var", "..")
SENSITIVE_PATH_POINTS = 40
TIERS = {
    "import os": 1,
    "import subprocess": 2,
    "open(": 1,
    "__import__": 2,
    "eval(": 2,
    "exec(": 2,
    "socket.": 2,
    "requests.": 1,
}
"""What code needs by what stands in it: from 0, direct, to 3, a machine of its own. Nothing here asks for 3."""
_MAX_TEXT = 1_000_000
_MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Score:
    """A risk from 0 (none) to 100, with one sentence for each rule that added to it."""

    value: int
    reasons: list[str] = field(default_factory=list)


def score(tool_name: str, arguments: Mapping[str, object]) -> Score:
    """Score one call. The same call always gets the same score; the arguments are not kept."""
    points: list[tuple[int, str]] = []
    if tool_name in DANGEROUS_TOOLS:
        points.append((DANGEROUS_TOOL_POINTS, f"the tool {tool_name} is dangerous"))
    text = "\n".join(_texts(arguments))[:_MAX_TEXT].lower()
    points += [
        (SENSITIVE_WORD_POINTS, f"an argument contains the word {word}") for word in SENSITIVE_WORDS if word in text
    ]
    path = str(arguments.get("path", ""))[:_MAX_TEXT]
    if found := next((part for part in SENSITIVE_PATHS if part in path), None):
        points.append((SENSITIVE_PATH_POINTS, f"the path contains {found}"))
    return Score(min(CEILING, sum(value for value, _ in points)), [reason for _, reason in points])


def tier(code: str) -> int:
    """Return the isolation that code needs: the highest of its matches, 0 without any."""
    return max((needed for word, needed in TIERS.items() if word in code), default=0)


def _texts(value: object, depth: int = 0) -> list[str]:
    """Collect names and values, because a word counts wherever it stands in the arguments."""
    if depth > _MAX_DEPTH:
        return []
    if isinstance(value, Mapping):
        return [text for name, inner in value.items() for text in (str(name), *_texts(inner, depth + 1))]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [text for inner in value for text in _texts(inner, depth + 1)]
    if isinstance(value, bytes | bytearray):
        return [bytes(value[:_MAX_TEXT]).decode("utf-8", "replace")]
    return [str(value)[:_MAX_TEXT]]
