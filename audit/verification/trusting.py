"""Reads the checkpoints wherever they lie, believes what a pinned key signed, and says which hashes they vouch for.

The tables may have been changed by anybody, so no row counts for what it says: a checkpoint counts for its signature,
and the hashes beside it count when they lead to the root that was signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audit import merkle
from audit.verification.findings import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audit.verification.statements import Statement

    StoredHashes = Callable[[int, int], bytes]

HASH = 32


@dataclass(slots=True)
class Trust:
    """What the signatures say about one chain."""

    leaves: bytearray = field(default_factory=bytearray)
    """The hashes that are vouched for, from number 1 on."""
    signed: int = 0
    """The size of the largest checkpoint that a trusted key signed."""
    good: list[int] = field(default_factory=list)
    """The sizes whose signed roots the hashes lead to."""
    findings: list[Finding] = field(default_factory=list)

    def last_good_before(self, seq: int) -> int:
        """Return the size of the last checkpoint that covers no number from `seq` on."""
        return max((size for size in self.good if size < seq), default=0)


def trust(statements: Sequence[Statement], stored: StoredHashes) -> Trust:
    """Follow the signed checkpoints of one chain from the smallest to the largest.

    `stored(first, last)` returns the hashes that the seals hold, for a checkpoint without usable leaves of its own.
    """
    found = Trust(signed=max((one.size for one in statements), default=0))
    found.findings += _contradictions(statements)
    found.findings += _lost_predecessors(statements)
    tree = merkle.Frontier()
    sizes = sorted({one.size for one in statements})
    for size in sizes:
        known = len(found.leaves) // HASH
        same = [one for one in statements if one.size == size]
        tried = _first_that_fits(same, tree, known, stored)
        if tried is None:
            # Where rows are missing there is no root to compare with: that they are missing is said elsewhere.
            if _all_there(stored(known + 1, size)):
                found.findings.append(_unlike(same[0], known, stored))
            break
        leaves, tree = tried
        found.findings += _edited_leaves(same, bytes(found.leaves[-HASH * size :]) + leaves, size)
        found.leaves += leaves
        found.good.append(size)
    return found


def _first_that_fits(
    same: Sequence[Statement], tree: merkle.Frontier, known: int, stored: StoredHashes
) -> tuple[bytes, merkle.Frontier] | None:
    """Return the hashes since the last checkpoint that lead to one of the signed roots, and the tree with them."""
    size = same[0].size
    for statement in same:
        own = statement.leaves[-HASH * (size - known) :] if size > known else b""
        missing = size - known - len(own) // HASH
        leaves = (stored(known + 1, known + missing) if missing > 0 else b"") + own
        grown = _grown(tree, leaves, size)
        if grown is not None and grown.root() == statement.root:
            return leaves, grown
    leaves = stored(known + 1, size)
    grown = _grown(tree, leaves, size)
    if grown is not None and any(grown.root() == one.root for one in same):
        return leaves, grown
    return None


def _grown(tree: merkle.Frontier, leaves: bytes, size: int) -> merkle.Frontier | None:
    """Return a copy of the tree with more leaves, or None when they don't make it as large as that."""
    if len(leaves) % HASH or tree.size + len(leaves) // HASH != size:
        return None
    grown = tree.copy()
    for start in range(0, len(leaves), HASH):
        grown.append(leaves[start : start + HASH])
    return grown


def _all_there(leaves: bytes) -> bool:
    return all(any(leaves[start : start + HASH]) for start in range(0, len(leaves), HASH))


def _contradictions(statements: Sequence[Statement]) -> list[Finding]:
    """Name sizes for which different roots were signed: that takes the key, and two stories."""
    roots: dict[int, bytes] = {}
    findings = []
    for one in statements:
        if roots.setdefault(one.size, one.root) != one.root:
            note = f"different roots were signed for the first {one.size} events"
            findings.append(_finding(Verdict.REWRITTEN, note, one.size, roots[one.size], one.root))
    return findings


def _lost_predecessors(statements: Sequence[Statement]) -> list[Finding]:
    """Name checkpoints that speak of one before them which is nowhere."""
    known = {one.hash for one in statements}
    lost = {one.size for one in statements if one.previous and one.previous not in known}
    return [
        Finding(Verdict.CHECKPOINT_MISSING, f"the checkpoint before that of {size} events is nowhere", seq=size)
        for size in sorted(lost)
    ]


def _edited_leaves(same: Sequence[Statement], leaves: bytes, size: int) -> list[Finding]:
    return [
        Finding(Verdict.CHECKPOINT_EDITED, f"the hashes beside the checkpoint in {one.place} were changed", seq=size)
        for one in same
        if not one.leaves or not leaves.endswith(one.leaves)
    ]


def _unlike(statement: Statement, known: int, stored: StoredHashes) -> Finding:
    tree = merkle.Frontier()
    found = _grown(tree, stored(1, statement.size), statement.size)
    note = f"between {known + 1} and {statement.size} the chain is not the one that was signed"
    return _finding(Verdict.REWRITTEN, note, known + 1, statement.root, found.root() if found else b"")


def _finding(verdict: Verdict, note: str, seq: int, expected: bytes, found: bytes) -> Finding:
    return Finding(verdict, note, seq=seq, expected=expected.hex(), found=found.hex())
