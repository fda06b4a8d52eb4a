"""Says of each row that doesn't fit what was done to it: edited, swapped, doubled, put in, taken out or rewritten.

A row that was moved still has a hash or a content that belongs to another number. That is what is looked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.canonical import chain_hash
from audit.verification.findings import Finding, Verdict
from audit.verification.walking import HASH, NO_HASH, Misfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from audit.verification.pruning import Pruned

MAX_PARTNERS = 64
"""With how many other misfits one is compared: whoever moved more rows than that is named by the first of them."""
_ID = b'"id":"'


class Classifier:
    """Explains the misfits of one chain.

    `leaves` are the signed hashes; `find_event` returns the id of an event without a seal that belongs to a number.
    """

    def __init__(
        self,
        chain: str,
        leaves: bytes,
        pruned: Pruned,
        misfits: Sequence[Misfit],
        find_event: Callable[[str, Misfit], str],
    ) -> None:
        self._chain = chain
        self._leaves = leaves
        self._pruned = pruned
        self._misfits = misfits
        self._find_event = find_event
        self._at = {misfit.seq: misfit for misfit in misfits}
        self._partners = [one for one in misfits if one.stored or one.body][:MAX_PARTNERS]
        self._held = {one.stored for one in misfits if one.stored}

    def findings(self) -> Iterator[Finding]:
        """Yield what was done to each row, in their order. Rows that only follow a rewritten one are left out."""
        shift, expected_seq = 0, 0
        for misfit in self._misfits:
            home = self._home_of(misfit.stored)
            if shift and misfit.seq == expected_seq and home - misfit.seq == shift:
                # It only moved along with the row before it.
                expected_seq += 1
                continue
            finding = self._explain(misfit)
            yield finding
            if finding.verdict is Verdict.REWRITTEN:
                return
            shift = -1 if finding.verdict is Verdict.INSERTED else home - misfit.seq if home else 0
            expected_seq = misfit.seq + 1

    def _explain(self, misfit: Misfit) -> Finding:
        if misfit.stored is None and misfit.body is None:
            return self._without_seal(misfit)
        if misfit.stored != misfit.expected:
            return self._with_other_seal(misfit)
        if misfit.body is None:
            return self._without_event(misfit)
        return self._with_other_body(misfit)

    def _without_seal(self, misfit: Misfit) -> Finding:
        event_id = self._find_event(self._chain, misfit)
        what = "the seal of this event is gone" if event_id else "the event and its seal are gone"
        return _finding(Verdict.MISSING, what, misfit._replace(event_id=event_id))

    def _without_event(self, misfit: Misfit) -> Finding:
        if self._pruned.claimed(misfit.seq):
            return _finding(
                Verdict.PRUNED_WITHOUT_RECORD, "the event is gone and no signed record says that it was pruned", misfit
            )
        return _finding(Verdict.MISSING, "the event is gone, its seal is there", misfit)

    def _with_other_seal(self, misfit: Misfit) -> Finding:
        """Explain a seal that doesn't hold the hash that was signed for its number."""
        home = self._home_of(misfit.stored)
        if home and home != misfit.seq:
            return self._moved(misfit, home)
        if misfit.body is None:
            return _finding(Verdict.EDITED, "the seal was changed and its event is gone", misfit)
        if misfit.previous is not None and self._hash(misfit.seq, misfit.previous, misfit.body) == misfit.expected:
            return _finding(Verdict.EDITED, "the seal was changed, the event was not", misfit)
        if self._shifted(misfit):
            return _finding(Verdict.INSERTED, "this row was put in, and those behind it moved on", misfit)
        if self._rest_differs(misfit.seq):
            return _finding(Verdict.REWRITTEN, "from here on the chain is not the one that was signed", misfit)
        return _finding(Verdict.EDITED, "the event and its seal were changed", self._with_found(misfit))

    def _moved(self, misfit: Misfit, home: int) -> Finding:
        if home not in self._at:
            return _finding(Verdict.DUPLICATED, f"this is number {home} once more", misfit)
        if misfit.expected in self._held:
            return _finding(Verdict.REORDERED, f"this is the row of number {home}", misfit)
        return _finding(Verdict.MISSING, f"the event is gone, and number {home} was moved into its place", misfit)

    def _shifted(self, misfit: Misfit) -> bool:
        """Say whether the next seal holds the hash that was signed for this number."""
        following = self._at.get(misfit.seq + 1)
        return following is not None and following.stored is not None and following.stored == misfit.expected

    def _rest_differs(self, seq: int) -> bool:
        """Say whether no seal from here on is the one that was signed: one row alone is an edit, all are a rewrite."""
        following = self._at.get(seq + 1)
        is_last = seq * HASH >= len(self._leaves)
        return is_last or (following is not None and following.stored != following.expected)

    def _with_other_body(self, misfit: Misfit) -> Finding:
        """Explain an event that doesn't have the hash that its seal says."""
        assert misfit.body is not None  # noqa: S101  (the caller looked)
        for partner in self._partners:
            if partner.seq != misfit.seq and self._belongs(misfit, partner):
                note = f"this is the event of number {partner.seq}"
                return _finding(Verdict.REORDERED, note, self._with_found(misfit))
        return _finding(Verdict.EDITED, "the event was changed", self._with_found(misfit))

    def _belongs(self, misfit: Misfit, partner: Misfit) -> bool:
        """Say whether a misfit's content is that of another number, as it is or under the other's id."""
        body = misfit.body or b""
        renamed = body.replace(_ID + misfit.event_id.encode(), _ID + partner.event_id.encode())
        for candidate in {body, renamed}:
            for previous in self._before(partner, misfit):
                found = self._hash(partner.seq, previous, candidate)
                if found == partner.expected or found == misfit.stored:
                    return True
        return False

    def _before(self, partner: Misfit, misfit: Misfit) -> set[bytes]:
        """Return what may have been the hash before a number: what is there now, or a neighbour that was moved."""
        return {one for one in (partner.previous, misfit.expected, partner.expected) if one is not None}

    def _home_of(self, stored: bytes | None) -> int:
        """Return the number for which a hash was signed; 0 when it was for none."""
        if stored is None:
            return 0
        at = self._leaves.find(stored)
        while at % HASH and at >= 0:
            at = self._leaves.find(stored, at + 1)
        return at // HASH + 1 if at >= 0 else 0

    def _with_found(self, misfit: Misfit) -> Misfit:
        """Put the hash that the event has now in the place of the seal's, so that both are shown."""
        if not misfit.body or misfit.previous is None:
            return misfit._replace(stored=None)
        return misfit._replace(stored=self._hash(misfit.seq, misfit.previous, misfit.body))

    def _hash(self, seq: int, previous: bytes, body: bytes) -> bytes:
        return chain_hash(self._chain, seq, previous, body)


def _finding(verdict: Verdict, note: str, misfit: Misfit) -> Finding:
    return Finding(
        verdict,
        note,
        seq=misfit.seq,
        event_id=misfit.event_id,
        expected=misfit.expected.hex() if misfit.expected else "",
        found=misfit.stored.hex() if misfit.stored and misfit.stored != NO_HASH else "",
    )
