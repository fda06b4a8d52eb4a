"""One command after expansion: its name, options and other arguments."""

from __future__ import annotations

import functools
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit.risk.shell import table
from audit.risk.shell.values import NOTHING, Word

if TYPE_CHECKING:
    from collections.abc import KeysView, Sequence

_VERSION = re.compile(r"^(python|pip|perl|ruby|php|lua|gcc|g\+\+|clang|node)-?[0-9][0-9.]*$")
_SYSTEM_FOLDERS = ("/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/", "/usr/libexec/")
_NEAR = 4


@dataclass(slots=True)
class Command:
    """A command's words, read the way its program would read them."""

    path: str
    arguments: Sequence[Word]
    options: dict[str, list[Word]] = field(default_factory=dict)
    positionals: list[Word] = field(default_factory=list)

    name: str = field(init=False)
    """The program's name in the tables: without its folder and version."""
    is_local: bool = field(init=False)
    """Whether it names a file outside the folders where the system's programs are."""

    near: frozenset[str] = field(init=False)
    """The first words that are no options: where subcommands stand."""

    matched: list[str] | None = field(init=False, default=None)
    """The rules whose command patterns match, once somebody asked."""

    def __post_init__(self) -> None:
        self.name = canonical(self.path)
        self.is_local = "/" in self.path and not posixpath.normpath(self.path).startswith(_SYSTEM_FOLDERS)
        self._parse()
        self.near = frozenset([word.text for word in self.positionals[:_NEAR]])

    @property
    def flags(self) -> KeysView[str]:
        """All options as they are written, and each letter of short ones."""
        return self.options.keys()

    @property
    def taints(self) -> frozenset[str]:
        """The origins of all arguments."""
        found = NOTHING
        for word in self.arguments:
            found |= word.taints
        return found

    def has(self, token: str) -> bool:
        """Whether an option, or one of the first other words, is this."""
        if token.startswith(("-", "+")):
            return token in self.flags or any(word.text == token for word in self.positionals[-1:])
        return token in self.near

    def value(self, *flags: str) -> Word | None:
        """Return the value of an option, or None."""
        for flag in flags:
            for word in self.options.get(flag, ()):
                return word
        return None

    def values(self, *flags: str) -> list[Word]:
        """Return all values of an option."""
        return [word for flag in flags for word in self.options.get(flag, ())]

    def _key(self) -> str:
        """Return the name under which the options are listed: some programs have others for each verb."""
        if self.name in table.HAVE_VERBS:
            for word in self.arguments[:8]:
                key = f"{self.name} {word.text}"
                if key in table.VALUES:
                    return key
        return self.name

    def _parse(self) -> None:
        takes = table.VALUES.get(self._key(), NOTHING)
        waiting = list(self.arguments)
        while waiting:
            word = waiting.pop(0)
            text = word.text
            if text == "--":
                self.options.setdefault(text, [])
                self.positionals += waiting
                return
            if len(text) < 2 or text[0] not in "-+" or (text[0] == "+" and self.name not in {"set"}):
                self.positionals.append(word)
            elif text.startswith("--"):
                flag, equals, value = text.partition("=")
                self._option(flag, _with(word, value) if equals else None)
                if equals:
                    self.options.setdefault(text, [])
                elif flag in takes and waiting:
                    following = waiting.pop(0)
                    self._option(flag, following)
                    self.options.setdefault(f"{flag}={following.text}", [])
            else:
                self._short(word, takes, waiting)

    def _short(self, word: Word, takes: frozenset[str], waiting: list[Word]) -> None:
        text = word.text
        self.options.setdefault(text, [])
        if text in takes:
            self._option(text, waiting.pop(0) if waiting else None)
            return
        name, equals, value = text.partition("=")
        if equals and len(name) > 2 and name in takes:
            self._option(name, _with(word, value))
            return
        for place in range(1, min(len(text), 24)):
            flag = "-" + text[place]
            if flag in takes:
                rest = text[place + 1 :]
                self._option(flag, _with(word, rest) if rest else (waiting.pop(0) if waiting else None))
                return
            self.options.setdefault(flag, [])

    def _option(self, flag: str, value: Word | None) -> None:
        values = self.options.setdefault(flag, [])
        if value is not None:
            values.append(value)


def _with(word: Word, text: str) -> Word:
    return Word(text, word.taints, word.node)


@functools.lru_cache(maxsize=4096)
def canonical(path: str) -> str:
    """Return the name in the tables of the program at a path."""
    name = path.rstrip("/").rpartition("/")[2] or path
    if found := _VERSION.match(name):
        name = found[1]
    return table.SAME_AS.get(name, name)
