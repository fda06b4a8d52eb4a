"""HTTP/1.1 answers, read strictly.

Guests write these bytes, so nothing is guessed: a head that is not plain HTTP/1.1 and a body whose framing is
not exact are errors, and every length is bounded before memory is spent on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_HEAD = 64 * 1024
MAX_FIELDS = 128
_MAX_SIZE_LINE = 256
_MAX_TRAILERS = 8 * 1024
# A guest that sends one byte a chunk must not hold the loop: the rest waits for the next turn.
_CHUNKS_A_TURN = 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")

Fields = list[tuple[bytes, bytes]]


class BadAnswer(Exception):
    """The other side's answer is not HTTP/1.1 as we read it."""


@dataclass(slots=True)
class AnswerHead:
    """A parsed head. `length` None and not `chunked` means: the body ends with the connection.

    `declared` is the length that the fields name, which for HEAD is not the length of a body.
    """

    status: int
    fields: Fields = field(default_factory=list)
    keep_alive: bool = True
    length: int | None = None
    declared: int | None = None
    chunked: bool = False

    def get(self, name: bytes) -> bytes | None:
        """Return the value of the first field of this lower-case name."""
        for raw_name, value in self.fields:
            if raw_name.lower() == name:
                return value
        return None


def parse_head(block: bytes, *, method: str) -> AnswerHead:
    """Parse the bytes up to (and without) the empty line. Raises BadAnswer."""
    lines = block.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(lines[0])
    if status_line is None:
        raise BadAnswer("the status line is not HTTP/1.1")
    if len(lines) > MAX_FIELDS + 1:
        raise BadAnswer("the answer has too many header fields")
    head = AnswerHead(int(status_line[2]), keep_alive=status_line[1] == b"1")
    coded = False
    for line in lines[1:]:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise BadAnswer("a header field is malformed")
        name, value = match[1], match[2].rstrip(b" \t")
        head.fields.append((name, value))
        lowered = name.lower()
        if lowered == b"content-length":
            if head.length is not None or _LENGTH.fullmatch(value) is None:
                raise BadAnswer("the content length is not one number")
            head.length = head.declared = int(value)
        elif lowered == b"transfer-encoding":
            if coded or value.lower() != b"chunked" or status_line[1] != b"1":
                raise BadAnswer("the transfer coding is not chunked")
            coded = head.chunked = True
        elif lowered == b"connection" and b"close" in value.lower():
            head.keep_alive = False
    if coded and head.length is not None:
        raise BadAnswer("the answer has both a length and a transfer coding")
    _apply_framing(head, method)
    return head


def _apply_framing(head: AnswerHead, method: str) -> None:
    status = head.status
    if method == "HEAD" or status < 200 or status in {204, 304}:
        if status == 204 and (head.chunked or head.length):
            head.keep_alive = False
        head.chunked, head.length = False, 0
    elif method == "CONNECT" and status < 300:
        head.chunked, head.length = False, 0
    elif not head.chunked and head.length is None:
        head.keep_alive = False


class ChunkedDecoder:
    """Takes the chunks out of a chunked body, a piece of the stream at a time."""

    __slots__ = ("_after_data", "_kept", "_left", "_trailer_bytes", "finished")

    def __init__(self) -> None:
        self._left = 0
        self._after_data = False
        self._kept = b""
        self._trailer_bytes = -1
        self.finished = False

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        """Append the body bytes found in `data` to `pieces`.

        Returns what was not consumed: after `finished` that is no part of this body; before, it is the rest
        that the next turn must feed again. Raises BadAnswer.
        """
        if self._kept:
            data, self._kept = self._kept + data, b""
        at, end = 0, len(data)
        turns = 0
        while at < end and not self.finished:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._after_data = not self._left
                continue
            if self._after_data:
                if end - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise BadAnswer("a chunk is not closed")
                at += 2
                self._after_data = False
                turns += 1
                if turns >= _CHUNKS_A_TURN:
                    return data[at:]
                continue
            stop = data.find(b"\r\n", at)
            if stop < 0:
                break
            self._line(data, at, stop)
            at = stop + 2
        if self.finished:
            return data[at:]
        self._kept = data[at:]
        if len(self._kept) > _MAX_SIZE_LINE + _MAX_TRAILERS:
            raise BadAnswer("a line between chunks is too long")
        return b""

    def _line(self, data: bytes, at: int, stop: int) -> None:
        if self._trailer_bytes >= 0:
            self._trailer_bytes += stop - at
            if self._trailer_bytes > _MAX_TRAILERS:
                raise BadAnswer("the trailers are too long")
            self.finished = stop == at
            return
        match = _SIZE_LINE.fullmatch(data, at, stop) if stop - at <= _MAX_SIZE_LINE else None
        if match is None:
            raise BadAnswer("a chunk size is malformed")
        self._left = int(match[1], 16)
        if not self._left:
            self._trailer_bytes = 0


HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"content-length",
        b"http2-settings",
    }
)


def end_to_end(fields: Fields | tuple[tuple[bytes, bytes], ...], dropped: frozenset[bytes]) -> Fields:
    """Return the fields that go on: no hop-by-hop field, none that Connection names, none of `dropped`."""
    named: set[bytes] = set()
    for name, value in fields:
        if len(name) == 10 and name.lower() == b"connection":
            named.update(part.strip() for part in value.lower().split(b","))
    kept: Fields = []
    for name, value in fields:
        lowered = name.lower()
        if lowered not in HOP_BY_HOP and lowered not in dropped and lowered not in named:
            kept.append((name, value))
    return kept


def render_head(first_line: bytes, fields: Fields) -> bytes:
    """Return the bytes of a head. The fields were validated where they came in."""
    lines = [first_line]
    lines += [name + b": " + value for name, value in fields]
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def request_line(method: str, target: str) -> bytes:
    """Return the first line of a request; method and target were parsed from one."""
    return f"{method} {target} HTTP/1.1".encode("utf-8", "surrogateescape")
