"""Which numbers of a chain may have no event any more: those that a signed prune record names, and no others."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from audit import prunerecords
from audit.verification.findings import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from audit.verification.snapshot import Snapshot

Range = tuple[int, int]


class Pruned:
    """The ranges that were signed, and those that the tables merely claim."""

    def __init__(self, signed: Iterable[Range] = (), claims: Iterable[Range] = ()) -> None:
        self._signed = _merged(signed)
        self._firsts = [first for first, _ in self._signed]
        self._claims = list(claims)

    def holds(self, seq: int) -> bool:
        """Say whether a signed record names the number."""
        at = bisect_right(self._firsts, seq) - 1
        return at >= 0 and seq <= self._signed[at][1]

    def claimed(self, seq: int) -> bool:
        """Say whether a row without a signature behind it names the number."""
        return any(first <= seq <= last for first, last in self._claims)


def read(snapshot: Snapshot, chain: str, keys: Sequence[bytes]) -> tuple[Pruned, list[Finding]]:
    """Return what was pruned of a chain, and which records nobody who is trusted signed."""
    signed: list[Range] = []
    findings: list[Finding] = []
    records = snapshot.rows("SELECT id, note FROM audit_prunerecord WHERE chain = %s ORDER BY id", (chain,))
    for number, note in list(records):
        record = prunerecords.read(note, chain, keys)
        if record is None:
            findings.append(Finding(Verdict.BAD_SIGNATURE, f"no trusted key signed the prune record {number}"))
        else:
            signed += record.ranges
    rows = snapshot.rows("SELECT first, last FROM audit_prunerange WHERE chain = %s", (chain,))
    claims = [(first, last) for first, last in list(rows) if isinstance(first, int) and isinstance(last, int)]
    return Pruned(signed, claims), findings


def _merged(ranges: Iterable[Range]) -> list[Range]:
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
