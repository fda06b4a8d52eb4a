"""Follows one chain row by row and keeps what does not fit. What it means is decided afterwards, in `classifying`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from audit import canonical
from audit.canonical import body_of, chain_hash

if TYPE_CHECKING:
    from audit.verification.pruning import Pruned
    from audit.verification.snapshot import Snapshot

HASH = 32
NO_HASH = bytes(HASH)
MAX_KEPT = 2000
"""How many rows that don't fit are kept to be explained; of the others only the number is told."""

_FIRST_COLUMN = 3
_PRIMARY_KEY = _FIRST_COLUMN + canonical.COLUMNS.index("id")


class Misfit(NamedTuple):
    """A row that does not have the hash that it should have, or isn't there.

    `expected` is what was signed, or without a signature over it what the seal says; None when neither is known.
    `stored` is the seal's hash; None when the seal is gone or holds none. `body` is the event's canonical form; None
    when the event is gone.
    """

    seq: int
    event_id: str
    expected: bytes | None
    stored: bytes | None
    body: bytes | None
    previous: bytes | None


@dataclass(slots=True)
class Walk:
    """What was seen of one chain."""

    checked: int = 0
    pruned: int = 0
    last_seq: int = 0
    last_hash: bytes = NO_HASH
    misfits: list[Misfit] = field(default_factory=list)
    doubles: list[tuple[int, str]] = field(default_factory=list)
    """Numbers that more than one seal has, with the event of the second."""
    more: int = 0


class Walker:
    """Walks along one chain, from the number after `first` up to `last`.

    `leaves` are the signed hashes from number 1 on, as far as checkpoints reach. Beyond them a row can only be
    compared with its own seal and with the one before.
    """

    def __init__(self, chain: str, leaves: bytes, pruned: Pruned) -> None:
        self._chain = chain
        self._leaves = leaves
        self._signed = len(leaves) // HASH
        self._pruned = pruned
        self._walk = Walk()

    def walk(self, snapshot: Snapshot, first: int, last: int, *, more_follow: bool = False) -> Walk:
        """Return what was seen. `more_follow` says that there are numbers beyond `last`, so that it must be there."""
        walk = self._walk
        previous = self._hash_at(snapshot, first)
        walk.last_seq, walk.last_hash = first, previous or NO_HASH
        for row in snapshot.rows(_rows(snapshot.vendor), (self._chain, first, last)):
            seq, event_id, text = row[0], row[1], row[2]
            if seq != walk.last_seq + 1 and not self._out_of_step(seq, str(event_id)):
                continue
            if seq > walk.last_seq + 1:
                previous = self.signed(seq - 1)
            previous = self._row(seq, event_id, text, row, previous)
            walk.last_seq = seq
        if more_follow and walk.last_seq < last:
            self._out_of_step(last + 1, "")
            walk.last_seq, walk.last_hash = last, NO_HASH
        return walk

    def signed(self, seq: int) -> bytes | None:
        """Return the signed hash of a number; None beyond the last checkpoint."""
        return self._leaves[(seq - 1) * HASH : seq * HASH] if 0 < seq <= self._signed else None

    def _hash_at(self, snapshot: Snapshot, seq: int) -> bytes | None:
        """Return the hash that the number after this one builds on: what was signed, else what the seal says."""
        if not seq:
            return NO_HASH
        sql = "SELECT hash FROM audit_seal WHERE chain = %s AND seq = %s"
        stored = [hash_of(text) for (text,) in snapshot.rows(sql, (self._chain, seq))]
        return self.signed(seq) or (stored[0] if stored else None)

    def _out_of_step(self, seq: int, event_id: str) -> bool:
        """Note what is missing before a row, or that it is there twice; say whether the row is to be looked at."""
        walk = self._walk
        if seq <= walk.last_seq:
            walk.doubles.append((seq, event_id))
            return False
        for missing in range(walk.last_seq + 1, seq):
            if len(walk.misfits) >= MAX_KEPT:
                walk.more += seq - missing
                break
            before = self.signed(missing - 1) if missing > 1 else NO_HASH
            self._keep(Misfit(missing, "", self.signed(missing), None, None, before))
        return True

    def _row(self, seq: int, event_id: Any, text: Any, row: tuple[Any, ...], previous: bytes | None) -> bytes | None:
        """Look at one row; return the hash that the next one builds on."""
        walk = self._walk
        stored = hash_of(text)
        expected = self._leaves[(seq - 1) * HASH : seq * HASH] if seq <= self._signed else stored
        body: bytes | None
        if row[_PRIMARY_KEY] is None:
            body = None
            fits = self._pruned.holds(seq) and stored is not None and stored == expected
            walk.pruned += fits
        else:
            body = body_of(row[_FIRST_COLUMN:])
            walk.checked += 1
            # Without the hash before it, as behind a gap, there is nothing to compare with.
            known = previous is None or chain_hash(self._chain, seq, previous, body) == expected
            fits = known and stored is not None and stored == expected
        if not fits:
            self._keep(Misfit(seq, str(event_id), expected, stored, body, previous))
        walk.last_hash = stored or NO_HASH
        return expected

    def _keep(self, misfit: Misfit) -> None:
        if len(self._walk.misfits) < MAX_KEPT:
            self._walk.misfits.append(misfit)
        else:
            self._walk.more += 1


def _rows(vendor: str) -> str:
    return (
        f"SELECT s.seq, s.event_id, s.hash, {canonical.select(vendor, 'e')}"  # noqa: S608
        " FROM audit_seal s LEFT JOIN audit_event e ON e.id = s.event_id"
        " WHERE s.chain = %s AND s.seq > %s AND s.seq <= %s ORDER BY s.seq, s.id"
    )


def hash_of(text: object) -> bytes | None:
    """Return the hash that a column holds; None when it holds none."""
    if not isinstance(text, str) or len(text) != 2 * HASH:
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return found if len(found) == HASH else None
