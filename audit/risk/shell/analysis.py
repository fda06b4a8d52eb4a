"""The way into the shell's judge: a script, or the words of a command that is started without a shell."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from audit.risk.positions import in_characters
from audit.risk.shell import table
from audit.risk.shell.command import canonical
from audit.risk.shell.context import Context, Exhausted
from audit.risk.shell.state import State
from audit.risk.shell.values import Word
from audit.risk.shell.walk import Walker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audit.risk.findings import Finding

    Inner = Callable[[bytes, str, int], list[Finding]]

_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
# What two things do that are each allowed is little more than what one does: danger is in how they are joined.
# So are two signs of the same thing: a name in pieces that is evaluated is one disguise, not two, and what it is
# that is disguised is often a look at credentials.
_BESIDE = 0.3
_SAME_SIGN = {
    "sh.dyn": "disguise",
    "sh.evade": "disguise",
    "sh.fs.secret": "disguise",
    "sh.fs.hunt": "disguise",
    "sh.priv": "privilege",
    "sh.fs.write.system": "privilege",
    "sh.persist.service": "privilege",
    "sh.persist.hook": "disguise",
    "sh.evade.mask": "stand-in",
    "sh.persist.profile": "stand-in",
}


def analyse(code: bytes, inner: Inner) -> list[Finding]:
    """Return what a script does."""
    context = Context(inner)
    text = code.decode("utf-8", "surrogateescape")
    if "\0" in text or _INVISIBLE.search(text[1:]):
        context.report.add("sh.evade.text", None)
    # Bash drops NUL bytes and reads on.
    source = text.replace("\0", "").removeprefix("\ufeff")
    try:
        Walker(context, State()).script(source)
    except Exhausted:
        context.report.add("sh.dyn.depth", None)
    if context.fed and any(map(context.report.count, ("sh.net.client", "sh.net.socket", "sh.net.listen"))):
        # Some connection was opened, and a shell reads from a descriptor: it is hardly another one.
        context.report.add("sh.corr.network-shell", None)
    return _weighed(in_characters(context.report.findings, source.encode("utf-8", "surrogateescape")))


def analyse_argv(argv: Sequence[str], inner: Inner) -> list[Finding]:
    """Return what a command does that is started without a shell."""
    context = Context(inner)
    walker = Walker(context, State())
    try:
        walker.start([Word(text) for text in argv])
    except Exhausted:
        context.report.add("sh.dyn.depth", None)
    return _weighed(context.report.findings)


def is_plain(argv: Sequence[str]) -> bool:
    """Whether a command holds no code in it, so that a look into the tables is enough to judge it."""
    if not argv or len(argv) > 256:
        return not argv
    names = {canonical(word) for word in argv[:1]}
    return not names & _HOLDS_CODE and sum(map(len, argv)) < 8192 and not any("\n" in word for word in argv)


_HOLDS_CODE = (
    table.SHELLS
    | frozenset(table.INTERPRETERS)
    | frozenset(table.WRAPPERS)
    | {
        "awk",
        "sed",
        "find",
        "xargs",
        "git",
        "tar",
        "ssh",
        "docker",
        "podman",
        "eval",
        "vim",
        "vi",
        "gdb",
        "make",
        "rsync",
    }
)


def _weighed(findings: list[Finding]) -> list[Finding]:
    """Lower the weight of what stands beside a heavier finding of its kind."""
    heaviest: dict[str, tuple[int, str]] = {}
    kinds = [_kind_of(found) for found in findings]
    for kind, found in zip(kinds, findings, strict=True):
        heaviest[kind] = max(heaviest.get(kind, (0, "")), (found.weight, found.rule))
    return [
        found if not kind or found.rule == heaviest[kind][1] else replace(found, weight=round(found.weight * _BESIDE))
        for kind, found in zip(kinds, findings, strict=True)
    ]


def _kind_of(found: Finding) -> str:
    if found.rule == "sh.code.parse" or (found.kind == "capability" and found.tier < "L3"):
        return "capability"
    return _SAME_SIGN.get(found.rule) or _SAME_SIGN.get(found.rule.rpartition(".")[0], "")
