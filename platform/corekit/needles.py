"""Finding a secret in bytes that pass: as it is, and in the encodings in which a server may echo it.

Nothing is held back but an end that may be the beginning of a hit, so that a stream stays as quick as it came.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARKER = b"[secret removed]"
# A shorter value turns up in any answer by chance.
MIN_BYTES = 6


def _references(quoted: str, apostrophe: str, others: str, form: str) -> dict[int, bytes]:
    """Return what stands in a page for each character that would be markup there."""
    said = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': quoted, "'": apostrophe}
    said |= {mark: form.format(ord(mark)) for mark in others}
    return {ord(mark): text.encode() for mark, text in said.items() if text}


# Writers of pages differ in which characters they replace, and in how they write the two quotes.
_REFERENCES = (
    _references("", "", "", ""),
    _references("&quot;", "", "", ""),
    _references("&quot;", "&#x27;", "", ""),
    _references("&quot;", "&#39;", "", ""),
    _references("&quot;", "&#039;", "", ""),
    _references("&quot;", "&apos;", "", ""),
    _references("&#34;", "&#39;", "", ""),
    _references("&#34;", "&#39;", "+", "&#{};"),
    _references("&quot;", "&#39;", "/`=", "&#x{:X};"),
    _references("&quot;", "&#x27;", "`=", "&#x{:x};"),
)


class Needles:
    """What to look for: some values in each of six encodings.

    The encodings are the value itself (in capitals and in small letters too, as names are written), percent-encoded,
    escaped as in JSON or in a page, base64 in its three alignments (which is also how Basic carries it), and hex. It
    can't find a value that somebody has cut, turned round or encrypted.
    """

    __slots__ = ("_groups", "_texts", "longest")

    def __init__(self, values: Iterable[bytes]) -> None:
        texts = {text for value in values if len(value) >= MIN_BYTES for text in _encodings(value)}
        # The longest first: of two that begin at one place, the whole is to go.
        self._texts = tuple(sorted(texts, key=lambda text: (-len(text), text)))
        self.longest = max(map(len, self._texts), default=0)
        # Most of them begin alike, and where that beginning is not, none of them is.
        groups: dict[bytes, list[bytes]] = {}
        for text in self._texts:
            groups.setdefault(text[:MIN_BYTES], []).append(text)
        self._groups = tuple((_beginning(texts), texts) for texts in groups.values())

    def __repr__(self) -> str:
        return f"<Needles: {len(self._texts)}>"

    def __reduce__(self) -> str:
        raise TypeError("Needles hold secrets and are not written anywhere.")

    def found_in(self, data: bytes) -> bool:
        """Say whether one of them stands in the data."""
        return any(any(text in data for text in texts) for start, texts in self._groups if start in data)

    def removed_from(self, data: bytes) -> bytes:
        """Return the data with every hit replaced by the marker."""
        return b"".join(self._cut(data, self._hits(data)))

    def stream(self) -> Scanner:
        """Return a scanner for one stream of bytes."""
        return Scanner(self)

    def sifted(self, data: bytes) -> tuple[bytes, bytes, int]:
        """Return what of the data may go on, the end that only what follows can decide, and how many hits were cut."""
        hits = self._hits(data)
        passed, rest = self._cut(data, hits)
        kept = self._undecided(rest)
        return passed + rest[: len(rest) - kept], rest[len(rest) - kept :], len(hits)

    def _hits(self, data: bytes) -> list[tuple[int, int]]:
        found = sorted(
            (
                (start, len(text))
                for beginning, texts in self._groups
                if beginning in data
                for text in texts
                for start in _places(data, text)
            ),
            key=lambda hit: (hit[0], -hit[1]),
        )
        hits: list[tuple[int, int]] = []
        for start, length in found:
            if not hits or start >= hits[-1][0] + hits[-1][1]:
                hits.append((start, length))
            elif start + length > hits[-1][0] + hits[-1][1]:
                # Two that overlap go as one: the rest of the second would be a part of a secret.
                hits[-1] = (hits[-1][0], start + length - hits[-1][0])
        return hits

    @staticmethod
    def _cut(data: bytes, hits: list[tuple[int, int]]) -> tuple[bytes, bytes]:
        """Return the data up to the end of the last hit, with markers, and what follows it."""
        passed, at = [], 0
        for start, length in hits:
            passed += [data[at:start], MARKER]
            at = start + length
        return b"".join(passed), data[at:]

    def _undecided(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a hit."""
        kept = 0
        for text in self._texts:
            # Only a longer end than the one already found matters.
            start = max(0, len(data) - len(text) + 1)
            while (start := data.find(text[:1], start, len(data) - kept)) >= 0:
                if text.startswith(data[start:]):
                    kept = len(data) - start
                    break
                start += 1
        return kept


class Scanner:
    """One stream of bytes, in which every hit is replaced by the marker wherever the pieces are cut."""

    __slots__ = ("_kept", "_needles", "hits")

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._kept = b""
        self.hits = 0

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece and return what may go on now. It may be empty."""
        passed, self._kept, hits = self._needles.sifted(self._kept + piece)
        self.hits += hits
        return passed

    def finish(self) -> bytes:
        """Return what was held back, once nothing follows."""
        kept, self._kept = self._kept, b""
        return kept


def _beginning(texts: list[bytes]) -> bytes:
    """Return what all of the texts begin with."""
    first, last = min(texts), max(texts)
    length = next(
        (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first)
    )
    return first[:length]


def _places(data: bytes, text: bytes) -> Iterator[int]:
    start = -1
    while (start := data.find(text, start + 1)) >= 0:
        yield start


def _encodings(value: bytes) -> Iterator[bytes]:
    yield value
    # A server that repeats what it takes for a name writes it in one case.
    yield value.lower()
    yield value.upper()
    yield from _percent(value)
    yield from _json(value)
    yield from _page(value)
    yield from _base64(value)
    yield value.hex().encode()
    yield value.hex().upper().encode()


def _percent(value: bytes) -> Iterator[bytes]:
    every = "".join(f"%{byte:02X}" for byte in value)
    for text in (quote(value, safe=""), quote(value), quote_plus(value), every):
        yield text.encode()
        yield _lower_escapes(text)


def _lower_escapes(text: str) -> bytes:
    first, *rest = text.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)]).encode()


def _json(value: bytes) -> Iterator[bytes]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for escaped in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        inner = escaped[1:-1]
        yield inner.encode()
        yield inner.replace("/", "\\/").encode()
        # As in pages: what HTML would read as markup.
        yield inner.translate({ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&'="}).encode()


def _page(value: bytes) -> Iterator[bytes]:
    for references in _REFERENCES:
        yield b"".join(references.get(byte, bytes((byte,))) for byte in value)


def _base64(value: bytes) -> Iterator[bytes]:
    for before in range(3):
        # Only characters that depend on nothing but the value: what stands before and after it is not known.
        first, last = -(-before * 8 // 6), (before + len(value)) * 8 // 6
        padded = bytes(before) + value
        yield base64.b64encode(padded)[first:last]
        yield base64.urlsafe_b64encode(padded)[first:last]
