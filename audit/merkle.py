"""RFC 6962's tree over leaf hashes: roots that grow leaf by leaf, proofs of inclusion and of consistency.

The names are those of RFC 9162, section 2.1, where the algorithms are written down.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """Return how many of `size` leaves, two at least, lie left of the root: the largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


class Frontier:
    """A tree that only grows, kept as the roots of its perfect subtrees, largest first: one per set bit of its size."""

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, roots: Iterable[bytes] = ()) -> None:
        """Take up a tree where it was left. Raises ValueError when the roots can't be those of that size."""
        self.size = size
        self._roots = list(roots)
        if len(self._roots) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves does not have {len(self._roots)} perfect subtrees")

    def append(self, leaf_hash: bytes) -> None:
        """Add a leaf on the right."""
        found, size, roots = leaf_hash, self.size, self._roots
        while size & 1:
            found = node(roots.pop(), found)
            size >>= 1
        roots.append(found)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        if not self._roots:
            return EMPTY_ROOT
        found = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            found = node(left, found)
        return found

    def subtrees(self) -> Iterator[tuple[int, bytes]]:
        """Yield size and root of each perfect subtree, from the left."""
        left = self.size
        for root in self._roots:
            size = 1 << (left.bit_length() - 1)
            yield size, root
            left -= size

    def copy(self) -> Frontier:
        """Return a tree that grows apart from this one."""
        return Frontier(self.size, self._roots)


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over some leaves."""
    tree = Frontier()
    for one in leaf_hashes:
        tree.append(one)
    return tree.root()


def inclusion_proof(index: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """Return the path from a leaf to the root: the siblings, from below."""
    if len(leaf_hashes) == 1:
        return []
    middle = split(len(leaf_hashes))
    left, right = leaf_hashes[:middle], leaf_hashes[middle:]
    if index < middle:
        return [*inclusion_proof(index, left), root_of(right)]
    return [*inclusion_proof(index - middle, right), root_of(left)]


def consistency_proof(old: int, leaf_hashes: Sequence[bytes]) -> list[bytes]:
    """Return the proof that a tree begins with the first `old` of its leaves, of which there is one at least."""
    return _subproof(old, leaf_hashes, whole=True)


def _subproof(old: int, leaf_hashes: Sequence[bytes], *, whole: bool) -> list[bytes]:
    size = len(leaf_hashes)
    if old == size:
        return [] if whole else [root_of(leaf_hashes)]
    middle = split(size)
    left, right = leaf_hashes[:middle], leaf_hashes[middle:]
    if old <= middle:
        return [*_subproof(old, left, whole=whole), root_of(right)]
    return [*_subproof(old - middle, right, whole=False), root_of(left)]


def root_from_inclusion(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path leads to; None when it has the wrong length for this index and size."""
    if not 0 <= index < size:
        return None
    at, last, found = index, size - 1, leaf_hash
    for step in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            found = node(step, found)
            at, last = _up_to_right_child(at, last)
        else:
            found = node(found, step)
        at, last = at >> 1, last >> 1
    return found if last == 0 else None


def consistent(old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Say whether a proof shows that the tree of `size` leaves begins with the tree of `old` ones."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not path and old_root == root
    # A perfect old tree is a node of the new one, so the proof leaves it out.
    steps = [old_root, *path] if old.bit_count() == 1 else list(path)
    if not steps:
        return False
    at, last = old - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node(step, first), node(step, second)
            at, last = _up_to_right_child(at, last)
        else:
            second = node(second, step)
        at, last = at >> 1, last >> 1
    return last == 0 and (first, second) == (old_root, root)


def _up_to_right_child(at: int, last: int) -> tuple[int, int]:
    """Go up while the node is a left child without a sibling, as at the right edge of a tree that isn't perfect."""
    while not at & 1 and at:
        at, last = at >> 1, last >> 1
    return at, last
