"""What a shell's words come to: text, with marks where nobody can know it, and where the text came from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tree_sitter import Node

UNKNOWN = "\ue000"
"""Stands in a text for whatever only running the code would tell."""
SPLIT = "\ue001"
"""Stands where an unquoted expansion is split into words."""
MAX_TEXT = 65_536
_SPECIAL = "{},*?[]~\\"
_IS_SPECIAL = re.compile(r"[{},*?\[\]~\\]")
_HIDE = {ord(character): 0xE010 + place for place, character in enumerate(_SPECIAL)}
_SHOW = {0xE010 + place: character for place, character in enumerate(_SPECIAL)}
_HIDE_BRACES = {ord(character): _HIDE[ord(character)] for character in "{},~\\"}
_RANGE = re.compile(r"^(-?\d{1,9})\.\.(-?\d{1,9})$|^([A-Za-z])\.\.([A-Za-z])$")
_MAX_BRACES = 64

NOTHING: frozenset[str] = frozenset()


# Nobody changes one; but to freeze them costs more than all else that is done with most of them.
@dataclass(slots=True)
class Value:
    """A text and its origins: `secret`, `environment`, `network`, `file`, `decoded`."""

    text: str = ""
    taints: frozenset[str] = NOTHING

    @property
    def known(self) -> bool:
        """Whether every character is known."""
        return UNKNOWN not in self.text


@dataclass(slots=True)
class Word(Value):
    """One word of a command after all expansions, and how it was written."""

    node: Node | None = None
    pattern: bool = False
    assembled: bool = False
    escaped: bool = False
    shredded: bool = False


EMPTY = Value()
# A variable that nothing here has set: empty as far as one sees, whatever the caller likes in truth.
UNSET = Value("", frozenset({"unset"}))
MYSTERY = Value(UNKNOWN)


def joined(values: Iterable[Value], separator: str = "") -> Value:
    """Return one value out of several, with the origins of all."""
    taints: frozenset[str] = NOTHING
    texts = []
    for value in values:
        texts.append(value.text)
        taints |= value.taints
    return Value(separator.join(texts)[:MAX_TEXT], taints)


def quoted(text: str) -> str:
    """Return a word as the shell would read it back."""
    return "'" + text.replace("'", "'\\''") + "'"


def hide(text: str) -> str:
    """Return quoted text: nothing in it is a pattern, a brace or a tilde any more."""
    return text.translate(_HIDE) if _IS_SPECIAL.search(text) else text


def hide_braces(text: str) -> str:
    """Return expanded text: patterns in it still count, braces do not."""
    return text.translate(_HIDE_BRACES) if _IS_SPECIAL.search(text) else text


def show(text: str) -> str:
    """Undo `hide`."""
    return text if text.isascii() else text.translate(_SHOW)


def braces(text: str) -> list[str]:
    """Return the words that brace expansion makes of one."""
    if "{" not in text:
        return [text]
    done: list[str] = []
    waiting = [text]
    while waiting and len(done) + len(waiting) < _MAX_BRACES:
        current = waiting.pop(0)
        expanded = _first_brace(current)
        if expanded is None:
            done.append(current)
        else:
            waiting = expanded[:_MAX_BRACES] + waiting
    return done + waiting


def _first_brace(text: str) -> list[str] | None:
    opening = text.find("{")
    while opening != -1:
        if opening == 0 or text[opening - 1] != "$":
            parts = _alternatives(text, opening)
            if parts is not None:
                choices, end = parts
                return [text[:opening] + choice + text[end:] for choice in choices]
        opening = text.find("{", opening + 1)
    return None


def _alternatives(text: str, opening: int) -> tuple[list[str], int] | None:
    depth, start = 0, opening + 1
    choices = []
    for place in range(opening, len(text)):
        character = text[place]
        if character == "{":
            depth += 1
        elif character == "," and depth == 1:
            choices.append(text[start:place])
            start = place + 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                last = text[start:place]
                found = [*choices, last] if choices else _sequence(last)
                return (found, place + 1) if found else None
    return None


def _sequence(text: str) -> list[str]:
    found = _RANGE.match(text)
    if not found:
        return []
    low, high = (int(found[1]), int(found[2])) if found[1] else (ord(found[3]), ord(found[4]))
    step = 1 if low <= high else -1
    numbers = range(low, high + step, step)[:_MAX_BRACES]
    return [str(number) if found[1] else chr(number) for number in numbers]
