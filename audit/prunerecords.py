"""The signed text by which the worker says that it dropped the bodies of old events, and under which rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit import signing
from corekit import clock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_KIND = "pruned"
MAX_RANGES = 1000
"""How many ranges one record names: its note stays a text that a person can read."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says: the numbers that were dropped, first and last of each range, and why."""

    chain: str
    checkpoint: int
    """The size of the anchored checkpoint before which they all lie."""
    ranges: tuple[tuple[int, int], ...]
    rule: str

    @property
    def events(self) -> int:
        """How many numbers it names."""
        return sum(last - first + 1 for first, last in self.ranges)


def write(record: Record, at: datetime) -> str:
    """Return the text to sign. Its second line is a word, so that it can't pass for a checkpoint."""
    lines = [
        signing.origin(record.chain),
        _KIND,
        f"checkpoint {record.checkpoint}",
        f"rule {' '.join(record.rule.split())}",
        f"time {clock.to_rfc3339(at)}",
        *(f"range {first} {last}" for first, last in record.ranges),
    ]
    return "\n".join(lines) + "\n"


def read(note: object, chain: str, keys: Sequence[bytes]) -> Record | None:
    """Return what a note says; None unless one of the keys signed it and it is about this chain."""
    text = signing.open_note(note, keys) if isinstance(note, str) else None
    if text is None:
        return None
    try:
        return _parse(text.splitlines(), chain)
    except (ValueError, IndexError):
        return None


def _parse(lines: list[str], chain: str) -> Record:
    if lines[1] != _KIND or signing.chain_of(lines[0]) != chain:
        raise ValueError("another statement, or another chain's")
    said = [line.partition(" ")[::2] for line in lines[2:]]
    ranges = [rest.split(" ") for name, rest in said if name == "range"]
    named = dict(said)
    return Record(
        chain=chain,
        checkpoint=int(named.get("checkpoint", "")),
        ranges=tuple((int(first), int(last)) for first, last in ranges),
        rule=named.get("rule", ""),
    )
