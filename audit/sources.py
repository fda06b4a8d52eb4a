"""The source of an act out of its arguments: in coloured lines, with the places of the findings marked."""

from __future__ import annotations

import functools
import itertools
import json
import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pygments.lexer import Lexer
    from pygments.token import _TokenType

_INTERPRETERS = {
    "sh": "bash",
    "bash": "bash",
    "dash": "bash",
    "ash": "bash",
    "zsh": "bash",
    "ksh": "bash",
    "python": "python",
    "python3": "python",
    "node": "javascript",
    "deno": "javascript",
}
_CODE_FOLLOWS = re.compile(r"-[a-zA-Z]*[ce]")
_CELLS = {"sh": "bash", "shell": "bash", "js": "javascript", "ts": "typescript"} | {
    name: name for name in ("python", "bash", "javascript", "typescript")
}
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a finding lies in the source. `number` is the finding's on the page."""

    number: int
    band: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one colour within one line. `begins` are the findings whose places begin here."""

    text: str
    style: str
    band: str = ""
    begins: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What ran, line by line, and the numbers of the findings that are marked in it."""

    language: str
    lines: tuple[tuple[Piece, ...], ...]
    marked: frozenset[int]


@dataclass(frozen=True, slots=True)
class Code:
    """A text, what it is written in, and whether the findings' places count in it."""

    text: str
    language: str
    assessed: bool = True


def code_of(arguments: Mapping[str, Any]) -> Code:
    """Return the code of an act: of a cell its code, of a command its script or its words, else all arguments."""
    cell, command, more = arguments.get("code"), arguments.get("cmd"), arguments.get("args")
    if isinstance(cell, str):
        language = str(arguments.get("language") or "python").strip().lower()
        return Code(cell, _CELLS.get(language, "text"))
    if isinstance(command, str):
        words = [command, *map(str, more if isinstance(more, list) else ())]
        return _script(words) or Code(shlex.join(words), "bash", assessed=False)
    return Code(json.dumps(arguments, indent=2, sort_keys=True, ensure_ascii=False), "json", assessed=False)


def _script(words: Sequence[str]) -> Code | None:
    """Return what a shell or an interpreter is given to run, as in `env A=1 bash -lc 'make'`."""
    names = [_INTERPRETERS.get(posixpath.basename(word)) for word in words]
    at = next((place for place, name in enumerate(names) if name), None)
    if at is None:
        return None
    option = next((place for place in range(at + 1, len(words)) if _CODE_FOLLOWS.fullmatch(words[place])), None)
    following = [] if option is None else [word for word in words[option + 1 :] if not word.startswith("-")]
    return Code(following[0], str(names[at])) if following else None


def place_of(number: int, band: str, span: Mapping[str, Any], code: Code) -> Place | None:
    """Return a finding's place, or None when it is not one of this text: line, column and offset must agree."""
    start, end = span.get("offset"), span.get("end_offset")
    if not code.assessed or not isinstance(start, int) or not isinstance(end, int):
        return None
    if not 0 <= start < end <= len(code.text):
        return None
    before = code.text[:start]
    agreeing = {(len(lines), len(lines[-1])) for lines in (before.split("\n"), _LINE_ENDS.split(before))}
    return Place(number, band, start, end) if (span.get("line"), span.get("column")) in agreeing else None


def source_of(code: Code, places: Sequence[Place]) -> Source:
    """Return the lines of a source. Where places overlap, the first of them gives the colour."""
    lines: list[list[Piece]] = [[]]
    for at, style, text in _cut(code, places):
        over = [place for place in places if place.start <= at < place.end]
        begins = tuple(place.number for place in over if place.start == at)
        for place, part in enumerate(text.split("\n")):
            if place:
                lines.append([])
            if part or begins:
                lines[-1].append(Piece(_seen(part), style, over[0].band if over else "", begins))
            begins = ()
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return Source(code.language, tuple(map(tuple, lines)), frozenset(place.number for place in places))


def _cut(code: Code, places: Sequence[Place]) -> Iterator[tuple[int, str, str]]:
    """Yield offset, style and text of all tokens, cut where a place begins or ends."""
    borders = sorted({border for place in places for border in (place.start, place.end)})
    for start, kind, text in _lexer(code.language).get_tokens_unprocessed(code.text):
        end = start + len(text)
        cuts = [start, *(border for border in borders if start < border < end), end]
        for one, other in itertools.pairwise(cuts):
            if other > one:
                yield one, style_of(kind), text[one - start : other - start]


def style_of(kind: _TokenType) -> str:
    """Return the class of a kind of token, or of the nearest kind above it that has one."""
    return next(STANDARD_TYPES[one] for one in reversed(kind.split()) if one in STANDARD_TYPES)


def _seen(text: str) -> str:
    # What has no shape of its own could show the reader another text than the one that ran.
    return "".join(letter if letter.isprintable() or letter == "\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)


@functools.cache
def _lexer(language: str) -> Lexer:
    return get_lexer_by_name(language)
