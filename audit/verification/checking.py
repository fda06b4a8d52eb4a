"""Checks the ledger: all its chains, or those that were asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

from audit import signing
from audit.models import PLATFORM_CHAIN
from audit.verification import loose, parallel, pruning, statements
from audit.verification.classifying import Classifier
from audit.verification.findings import ChainReport, Finding, Report, Verdict
from audit.verification.snapshot import READ_ERRORS, BrokenTextError, snapshot
from audit.verification.trusting import HASH, Trust, trust
from audit.verification.walking import NO_HASH, Walk, hash_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from audit.verification.snapshot import Snapshot

MAX_SEQ = 2**63 - 1
_KEY_BYTES = 32
# How far a number may lie beyond all that is known of a chain before it is called put in.
_SLACK = 10_000


class UnusableError(Exception):
    """What was asked for can't be checked. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to check, and what to trust. No chains stands for all."""

    keys: Sequence[bytes]
    chains: Sequence[str] = ()
    first: int = 1
    last: int | None = None
    notes: Sequence[str] = ()
    anchors: Path | None = None
    jobs: int = 0
    """How many processes; 0 stands for one a processor."""


def anchor_folder() -> Path | None:
    """Return the folder of the anchor `directory`; None when there is none on this host."""
    place = settings.GATEHOUSE
    folder: Path = place.anchor_directory
    return folder if "directory" in place.anchors and folder.is_dir() else None


def trusted_keys(named: Sequence[str] | None) -> list[bytes]:
    """Return the public keys to trust: those that are named in hex, or the installation's file. Raises UnusableError.

    Never the table of keys: whoever changes events would change it too.
    """
    file = settings.GATEHOUSE.ledger_public_file
    try:
        if not named and not file.exists():
            return [signing.public_key()] if signing.can_sign() else []
        texts = named or file.read_text(encoding="utf-8").split()
        keys = [bytes.fromhex(text) for text in texts]
    except (OSError, ValueError) as error:
        raise UnusableError(f"The public key can't be read: {error}.") from error
    if any(len(key) != _KEY_BYTES for key in keys):
        raise UnusableError(f"A public key is {_KEY_BYTES} bytes, written as {2 * _KEY_BYTES} hex digits.")
    return keys


def verify(request: Request) -> Report:
    """Check what was asked for at one moment of the database. Raises UnusableError."""
    try:
        return _verify(request, any_text=False)
    except BrokenTextError:
        return _verify(request, any_text=True)


def _verify(request: Request, *, any_text: bool) -> Report:
    begun = time.monotonic()
    report = Report()
    with snapshot(any_text=any_text) as database:
        orphans = loose.Orphans(database)
        for chain in request.chains or _all_chains(database, request, report):
            report.chains.append(_ChainCheck(database, chain, request, orphans, any_text=any_text).report())
        if not request.chains:
            loose.look(database, orphans, report)
    report.seconds = time.monotonic() - begun
    return report


def _all_chains(database: Snapshot, request: Request, report: Report) -> list[str]:
    found = {PLATFORM_CHAIN, *statements.chains_in(request.anchors)}
    for sql in (
        "SELECT name FROM audit_chain",
        "SELECT DISTINCT chain FROM audit_seal",
        "SELECT DISTINCT chain FROM audit_checkpoint",
    ):
        try:
            found |= {str(name) for (name,) in database.rows(sql)}
        except READ_ERRORS as error:
            report.findings.append(loose.unreadable(sql.split()[-1], error))
    return sorted(found)


class _ChainCheck:
    """One chain, from its signatures down to its rows."""

    def __init__(
        self, database: Snapshot, chain: str, request: Request, orphans: loose.Orphans, *, any_text: bool
    ) -> None:
        self._any_text = any_text
        self._database = database
        self._orphans = orphans
        self._chain = chain
        self._request = request
        self._report = ChainReport(chain)

    def report(self) -> ChainReport:
        """Check it; whatever state the tables are in, the answer is a report."""
        report = self._report
        try:
            self._check()
        except READ_ERRORS as error:
            report.findings.append(loose.unreadable("the ledger", error))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            note = f"a row of the ledger holds what no row of ours can: {' '.join(str(error).split())[:200]}"
            report.findings.append(Finding(Verdict.EDITED, note))
        report.findings.sort(key=lambda one: one.seq or MAX_SEQ)
        return report

    def _check(self) -> None:
        report, database = self._report, self._database
        sources = statements.Sources(self._request.anchors, self._request.notes, self._request.keys)
        signed, findings = statements.collect(database, self._chain, sources)
        if (signed or findings) and not self._request.keys:
            raise UnusableError("There is no public key to check signatures with: name one with --key.")
        trusted = trust(signed, self._stored)
        pruned, more = pruning.read(database, self._chain, self._request.keys)
        report.findings += [*findings, *trusted.findings, *more]
        head = self._head()
        walk = self._walk(trusted, pruned, head)
        self._explain(walk, trusted, pruned)
        if self._request.last is None:
            self._compare_head(head, walk, trusted)
            report.findings += loose.odd_seals(database, self._chain, walk.last_seq)
        bad = min((one.seq for one in report.findings if one.seq), default=MAX_SEQ)
        report.size, report.checked, report.pruned = walk.last_seq, walk.checked, walk.pruned
        report.signed_checkpoint, report.good_checkpoint = trusted.signed, trusted.last_good_before(bad)

    def _walk(self, trusted: Trust, pruned: pruning.Pruned, head: _Head) -> Walk:
        first = self._request.first - 1
        sql = "SELECT COUNT(*) FROM audit_seal WHERE chain = %s"
        ((held,),) = self._database.rows(sql, (self._chain,))
        bound = max(trusted.signed, held, min(head.size, 2 * held)) + _SLACK
        last = min(self._request.last or MAX_SEQ, bound)
        sql = "SELECT MAX(seq) FROM audit_seal WHERE chain = %s AND seq <= %s"
        ((end,),) = self._database.rows(sql, (self._chain, last))
        stretch = parallel.Stretch(self._chain, bytes(trusted.leaves), pruned, any_text=self._any_text)
        jobs = self._request.jobs or parallel.processors()
        if jobs == 1 or (end or 0) - first < parallel.WORTH_IT:
            return stretch.walk(self._database, first, last)
        return parallel.walk(stretch, first, end, jobs)

    def _explain(self, walk: Walk, trusted: Trust, pruned: pruning.Pruned) -> None:
        """Turn what did not fit into findings."""
        report = self._report
        if walk.misfits:
            leaves = bytes(trusted.leaves)
            classifier = Classifier(self._chain, leaves, pruned, walk.misfits, self._orphans.fitting)
            report.findings += classifier.findings()
            report.more += walk.more
        report.findings += [
            Finding(Verdict.DUPLICATED, "there are two seals with this number", seq=seq, event_id=event_id)
            for seq, event_id in walk.doubles
        ]

    def _compare_head(self, head: _Head, walk: Walk, trusted: Trust) -> None:
        """Compare where the chain ends with what was signed and with what its head says."""
        report = self._report
        if head.signed > trusted.signed:
            note = f"the checkpoint of {head.signed} events, of which the head of the chain speaks, is nowhere"
            report.findings.append(Finding(Verdict.CHECKPOINT_MISSING, note, seq=head.signed))
        size = max(trusted.signed, head.size)
        if walk.last_seq < size:
            known = bytes(trusted.leaves[walk.last_seq * HASH : (walk.last_seq + 1) * HASH])
            note = f"the last {size - walk.last_seq} events are gone"
            report.findings.append(Finding(Verdict.TAIL_CUT, note, seq=walk.last_seq + 1, expected=known.hex()))
        elif not head.found:
            if walk.last_seq:
                report.findings.append(Finding(Verdict.MISSING, "the head of the chain is gone", seq=walk.last_seq))
        elif head.size < walk.last_seq:
            note = f"the head of the chain says {head.size} events: this one was put in, or the head was set back"
            report.findings.append(Finding(Verdict.INSERTED, note, seq=max(head.size, 0) + 1))
        elif walk.last_seq and not walk.misfits and head.hash != walk.last_hash:
            note = "the head of the chain was changed"
            expected, found = walk.last_hash.hex(), head.hash.hex() if head.hash else ""
            report.findings.append(Finding(Verdict.EDITED, note, walk.last_seq, expected=expected, found=found))

    def _head(self) -> _Head:
        sql = "SELECT size, head, checkpoint_size FROM audit_chain WHERE name = %s"
        for size, head, signed in list(self._database.rows(sql, (self._chain,))):
            return _Head(found=True, size=_size(size), hash=hash_of(head), signed=_size(signed))
        return _Head()

    def _stored(self, first: int, last: int) -> bytes:
        """Return what the seals of some numbers hold, zeros for those that are missing."""
        if last < first or last - first > 50_000_000:
            return b""
        found = bytearray((last - first + 1) * HASH)
        sql = "SELECT seq, hash FROM audit_seal WHERE chain = %s AND seq >= %s AND seq <= %s"
        for seq, text in self._database.rows(sql, (self._chain, first, last)):
            if isinstance(seq, int):
                found[(seq - first) * HASH : (seq - first + 1) * HASH] = hash_of(text) or NO_HASH
        return bytes(found)


@dataclass(frozen=True, slots=True)
class _Head:
    """What the head of a chain says."""

    found: bool = False
    size: int = 0
    hash: bytes | None = None
    signed: int = 0


def _size(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < MAX_SEQ else 0
