"""Places in code: parsers count bytes, readers count characters."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.risk.findings import Finding, Span


def in_characters(findings: Iterable[Finding], data: bytes) -> list[Finding]:
    """Return findings whose places, counted in bytes of UTF-8, are counted in characters."""
    if data.isascii():
        return list(findings)
    counted = [0, *accumulate((byte & 0xC0) != 0x80 for byte in data)]

    def before(place: int) -> int:
        # A parser that was given a plainer spelling may point a little behind the end.
        return counted[min(place, len(counted) - 1)]

    def moved(span: Span) -> Span:
        offset, end = before(span.offset), before(span.end_offset)
        column = offset - before(span.offset - span.column)
        end_column = end - before(span.end_offset - span.end_column)
        return replace(span, offset=offset, end_offset=end, column=column, end_column=end_column)

    return [found if found.span is None else replace(found, span=moved(found.span)) for found in findings]
