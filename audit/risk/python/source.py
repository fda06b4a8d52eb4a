"""Python source as bytes: what hides in it before it is even parsed, and where its nodes stand."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from typing import TYPE_CHECKING

from audit.risk.findings import Span, snippet_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN_CODECS = frozenset(
    {"utf-8", "utf-8-sig", "ascii", "us-ascii", "iso-8859-1", "latin-1", "iso8859-1", "utf8", "latin1"}
)
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200d\u2060-\u2064\u3164\ufeff\uffa0\U000e0000-\U000e007f]"
)
_LONE_RETURN = re.compile(r"\r(?!\n)")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_JOINER_SCRIPTS = re.compile("[\u0600-\u06ff\u0900-\u0dff\U0001f000-\U0001faff\u2600-\u27bf]")
_ESCAPE_LINE = re.compile(rb"(?m)^[ \t]*([!%]{1,2})[ \t]*([^\r\n]*)$")


class Source:
    """The decoded text with the places of its lines."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.codec = _codec(code)
        self.text = _decoded(code, self.codec)
        self._starts = [0, *(found.end() for found in _NEWLINE.finditer(self.text))]

    def span(self, node: ast.AST) -> Span | None:
        """Return where a node stands."""
        line = getattr(node, "lineno", None)
        if line is None:
            return None
        end_line = getattr(node, "end_lineno", None) or line
        column = self._column(line, node.col_offset)  # type: ignore[attr-defined]
        end_column = self._column(end_line, getattr(node, "end_col_offset", None) or 0)
        return Span(line, column, end_line, end_column, self._offset(line, column), self._offset(end_line, end_column))

    def span_at(self, offset: int, length: int = 1) -> Span:
        """Return the place of text on one line."""
        line = sum(1 for start in self._starts if start <= offset)
        column = offset - self._starts[line - 1]
        return Span(line, column, line, column + length, offset, offset + length)

    def snippet(self, span: Span | None) -> str:
        """Return the text of a span, fit to be shown."""
        return "" if span is None else snippet_of(self.text[span.offset : span.end_offset])

    def oddities(self) -> Iterator[tuple[str, Span]]:
        """Yield the rule and the place of what makes the text look other than what runs."""
        if self.codec not in _PLAIN_CODECS:
            yield "py.text.codec", self.span_at(0, len(self._line(1)))
        if (at := self.text.find("\0")) >= 0:
            yield "py.text.nul", self.span_at(at)
        if not self.text.isascii():
            yield from self._odd_letters()
        if ((found := _LONE_RETURN.search(self.text)) and "\n" in self.text.replace("\r\n", "")) or (
            found and "#" in self.text[: found.start()].rpartition("\r")[2]
        ):
            yield "py.text.return", self.span_at(found.start())

    def _odd_letters(self) -> Iterator[tuple[str, Span]]:
        if found := _BIDI.search(self.text):
            yield "py.text.bidi", self.span_at(found.start())
        # Scripts and emoji that need joiners use them openly.
        if (found := _INVISIBLE.search(self.text, 1)) and not _JOINER_SCRIPTS.search(self.text):
            yield "py.text.invisible", self.span_at(found.start())

    def _line(self, number: int) -> str:
        start = self._starts[number - 1]
        return self.text[start : self._starts[number]] if number < len(self._starts) else self.text[start:]

    def _offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column if line <= len(self._starts) else len(self.text)

    def _column(self, line: int, column: int) -> int:
        # The parser counts bytes of UTF-8.
        if self._ascii or line > len(self._starts):
            return column
        text = self._line(line)
        return (
            column if text.isascii() else len(text.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "replace"))
        )

    @functools.cached_property
    def _ascii(self) -> bool:
        return self.text.isascii()


def _codec(code: bytes) -> str:
    try:
        return tokenize.detect_encoding(io.BytesIO(code).readline)[0].lower().replace("_", "-")
    except (SyntaxError, LookupError):
        return "unknown"


def _decoded(code: bytes, codec: str) -> str:
    try:
        return code.decode(codec)
    except (LookupError, ValueError):
        return code.decode("utf-8", "replace")


def parse(source: Source) -> tuple[ast.Module, list[tuple[str, bytes]]]:
    """Parse the bytes as Python would, or as a notebook would where lines begin with `!` or `%`.

    Return the tree and the notebook's lines that are no Python: the language of each and its text.
    """
    try:
        return ast.parse(source.code), []
    except SyntaxError:
        shells, code = _without_escapes(source.code)
        if not shells:
            raise
        return ast.parse(code), shells


def _without_escapes(code: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    shells: list[tuple[str, bytes]] = []
    if cell := re.match(rb"\s*%%(?:bash|sh|script[^\n]*|!)[^\n]*\n", code):
        return [("bash", code[cell.end() :])], b""

    def blank(found: re.Match[bytes]) -> bytes:
        marks, text = found[1], found[2]
        if marks.startswith(b"!") or text.startswith((b"sx ", b"system ", b"pip ", b"conda ")):
            shells.append(("bash", text.removeprefix(b"sx ").removeprefix(b"system ")))
        else:
            shells.append(("magic", text))
        return found[0].replace(found[0].lstrip(), b"pass") + b" " * max(0, len(found[0].lstrip()) - 4)

    return shells, _ESCAPE_LINE.sub(blank, code)
