"""Judge shell scripts and commands: which programs they start, on what, and where the results go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.risk.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Inner = Callable[[bytes, str, int], list[Finding]]


def analyse(code: bytes, inner: Inner) -> list[Finding]:
    """Return what a script does."""
    return [_ANY] if code.strip() else []


def analyse_argv(argv: Sequence[str], inner: Inner) -> list[Finding]:
    """Return what a command does that is started without a shell."""
    return [_ANY] if argv else []


def is_plain(argv: Sequence[str]) -> bool:
    """Whether a command holds no code in it, so that a look into the tables is enough to judge it."""
    return not argv


_ANY = Finding(
    rule="sh.code.unknown",
    title="Starts a program nobody knows",
    kind="capability",
    weight=28,
    tier="L2",
    message="Starts programs.",
)
