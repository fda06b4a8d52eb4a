"""Proofs that one event is part of what was signed: a short path of hashes from it to a checkpoint's root."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit import merkle
from audit.models import Checkpoint
from corekit.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH = 32


@dataclass(frozen=True, slots=True)
class Proof:
    """The path of one number to the root of a checkpoint, and the checkpoint's signed note."""

    size: int
    path: tuple[bytes, ...]
    note: str


class Prover:
    """Proves the numbers of one chain, each with the first checkpoint that covers it.

    Going upwards costs one pass over the chain's hashes; what was passed is remembered as far as later proofs need it.
    """

    def __init__(self, chain: str) -> None:
        self._chain = chain
        self._sizes: list[int] = []
        # Per checkpoint: the tree over all that lies before it, as its perfect subtrees.
        self._before: list[merkle.Frontier] = []
        self._tree = merkle.Frontier()
        self._held: tuple[int, bytes, str] | None = None

    def prove(self, seq: int) -> Proof | None:
        """Return the proof of a number; None before a checkpoint covers it. Raises Conflict when none can be made."""
        while not self._sizes or self._sizes[-1] < seq:
            if not self._step():
                return None
        at = bisect_left(self._sizes, seq)
        leaves, note = self._leaves_of(self._sizes[at])
        before = self._before[at]
        path = _path(seq - 1, self._sizes[at], before, leaves)
        return Proof(self._sizes[at], tuple(path), note)

    def _step(self) -> bool:
        """Take in the next checkpoint; say whether there was one."""
        rows = Checkpoint.objects.filter(chain=self._chain, size__gt=self._tree.size).order_by("size")
        row = rows.first()
        if row is None:
            return False
        leaves = bytes(row.leaves)
        grown = self._tree.copy()
        for start in range(0, len(leaves), HASH):
            grown.append(leaves[start : start + HASH])
        if grown.size != row.size or grown.root().hex() != row.root:
            raise Conflict("The checkpoints of this chain contradict each other: run `manage.py audit_verify`.")
        self._sizes.append(row.size)
        self._before.append(self._tree)
        self._tree = grown
        self._held = (row.size, leaves, row.note)
        return True

    def _leaves_of(self, size: int) -> tuple[bytes, str]:
        if self._held is None or self._held[0] != size:
            row = Checkpoint.objects.get(chain=self._chain, size=size)
            self._held = (size, bytes(row.leaves), row.note)
        return self._held[1:]


def _path(index: int, size: int, before: merkle.Frontier, leaves: bytes) -> Iterator[bytes]:
    """Yield the siblings of a leaf from below. The leaf is one of `leaves`, which follow the tree `before`."""
    yield from reversed(list(_downwards(index, 0, size, _Reader(before, leaves))))


def _downwards(index: int, first: int, last: int, reader: _Reader) -> Iterator[bytes]:
    while last - first > 1:
        middle = first + merkle.split(last - first)
        if index < middle:
            yield reader.root(middle, last)
            last = middle
        else:
            yield reader.root(first, middle)
            first = middle


class _Reader:
    """Roots of the subtrees that a proof needs: all of them are whole to the left, or made of the leaves at hand."""

    def __init__(self, before: merkle.Frontier, leaves: bytes) -> None:
        self._start = before.size
        self._leaves = leaves
        self._whole: dict[tuple[int, int], bytes] = {}
        first = 0
        for size, root in before.subtrees():
            self._whole[first, first + size] = root
            first += size

    def root(self, first: int, last: int) -> bytes:
        if (first, last) in self._whole:
            return self._whole[first, last]
        if last - first == 1:
            at = (first - self._start) * HASH
            return self._leaves[at : at + HASH]
        middle = first + merkle.split(last - first)
        return merkle.node(self.root(first, middle), self.root(middle, last))
