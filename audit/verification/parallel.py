"""Walks along a long chain in several processes: each takes a stretch, and the stretches are put together again."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from audit.verification.snapshot import snapshot
from audit.verification.walking import MAX_KEPT, Walk, Walker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.verification.pruning import Pruned
    from audit.verification.snapshot import Snapshot

WORTH_IT = 20_000
"""From how many events on a second process pays for its start."""
STRETCH = 10_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a walk needs to know of its chain. Forked processes have it without it being sent to them."""

    chain: str
    leaves: bytes
    pruned: Pruned
    any_text: bool

    def walk(self, database: Snapshot, first: int, last: int, *, more_follow: bool = False) -> Walk:
        """Walk from the number after `first` up to `last`."""
        return Walker(self.chain, self.leaves, self.pruned).walk(database, first, last, more_follow=more_follow)


def processors() -> int:
    """Return how many processes can run at once here."""
    return len(os.sched_getaffinity(0))


def walk(stretch: Stretch, first: int, last: int, jobs: int) -> Walk:
    """Walk from the number after `first` up to `last`, which is there, in several processes.

    Each sees the database at the moment it begins. Rows are only added to it, or pruned with a record, so that a later
    moment shows nothing wrong that an earlier one would not.
    """
    starts = range(first, last, STRETCH)
    parts = [(start, min(start + STRETCH, last), last) for start in starts]
    with ProcessPoolExecutor(jobs, get_context("fork"), initializer=_begin, initargs=(stretch,)) as pool:
        return _joined(pool.map(_walk_part, parts))


_stretch: list[Stretch] = []


def _begin(stretch: Stretch) -> None:
    _stretch[:] = [stretch]


def _walk_part(part: tuple[int, int, int]) -> Walk:
    first, last, end = part
    stretch = _stretch[0]
    with snapshot(any_text=stretch.any_text) as database:
        return stretch.walk(database, first, last, more_follow=last < end)


def _joined(parts: Iterable[Walk]) -> Walk:
    whole = Walk()
    for part in parts:
        whole.checked += part.checked
        whole.pruned += part.pruned
        room = MAX_KEPT - len(whole.misfits)
        whole.misfits += part.misfits[:room]
        whole.more += part.more + len(part.misfits[room:])
        whole.doubles += part.doubles
        whole.last_seq, whole.last_hash = part.last_seq, part.last_hash
    return whole
