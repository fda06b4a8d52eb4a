"""What a verification says: a verdict for each chain, and of what is wrong the row, both hashes and a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Verdict(StrEnum):
    """What was found. The order is that of how much each explains: the first one found is the chain's verdict."""

    REWRITTEN = "rewritten"
    REORDERED = "reordered"
    DUPLICATED = "duplicated"
    INSERTED = "inserted"
    EDITED = "edited"
    PRUNED_WITHOUT_RECORD = "pruned_without_record"
    BAD_SIGNATURE = "bad_signature"
    CHECKPOINT_EDITED = "checkpoint_edited"
    TAIL_CUT = "tail_cut"
    MISSING = "missing"
    CHECKPOINT_MISSING = "checkpoint_missing"
    UNANCHORED = "unanchored"
    OK = "ok"


GOOD, TAMPERED, INCOMPLETE, USAGE = 0, 1, 2, 3
_INCOMPLETE = frozenset({Verdict.TAIL_CUT, Verdict.MISSING, Verdict.CHECKPOINT_MISSING, Verdict.UNANCHORED})


def status_of(verdict: Verdict) -> int:
    """Return the exit status that a verdict stands for."""
    if verdict is Verdict.OK:
        return GOOD
    return INCOMPLETE if verdict in _INCOMPLETE else TAMPERED


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `seq` is 0 where no number is known, hashes are hex and empty where there is none."""

    verdict: Verdict
    note: str
    seq: int = 0
    event_id: str = ""
    expected: str = ""
    found: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "verdict": str(self.verdict),
            "seq": self.seq or None,
            "event_id": self.event_id or None,
            "expected": self.expected or None,
            "found": self.found or None,
            "note": self.note,
        }


@dataclass(slots=True)
class ChainReport:
    """What came of one chain."""

    chain: str
    size: int = 0
    checked: int = 0
    pruned: int = 0
    good_checkpoint: int = 0
    """The size of the last signed checkpoint with which everything up to it agrees."""
    signed_checkpoint: int = 0
    """The size of the last checkpoint that a trusted key signed."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """How many findings were left out."""

    @property
    def first(self) -> Finding | None:
        """The finding to show: a change before a gap, the lowest number first."""
        return min(self.findings, key=_rank) if self.findings else None

    @property
    def verdict(self) -> Verdict:
        """What the chain is."""
        first = self.first
        return first.verdict if first else Verdict.OK

    def settle(self) -> None:
        """Sort the findings and say up to which checkpoint the chain still holds."""
        self.findings.sort(key=_rank)

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON."""
        first = self.first
        return {
            "chain": self.chain,
            "verdict": str(self.verdict),
            "size": self.size,
            "checked": self.checked,
            "pruned": self.pruned,
            "signed_checkpoint": self.signed_checkpoint,
            "good_checkpoint": self.good_checkpoint,
            "first_bad": first.as_dict() if first else None,
            "findings": [finding.as_dict() for finding in self.findings],
            "findings_left_out": self.more,
        }


@dataclass(slots=True)
class Report:
    """What came of a verification of all chains that were asked for."""

    chains: list[ChainReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """What belongs to no chain: events without a place, tables that can't be read."""
    notes: list[str] = field(default_factory=list)
    waiting: int = 0
    """How many events wait for their number."""
    seconds: float = 0.0

    @property
    def checked(self) -> int:
        """How many events were hashed."""
        return sum(chain.checked for chain in self.chains)

    @property
    def verdict(self) -> Verdict:
        """The gravest of all."""
        return _gravest([chain.verdict for chain in self.chains] + [finding.verdict for finding in self.findings])

    @property
    def status(self) -> int:
        """The exit status."""
        return status_of(self.verdict)

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "verdict": str(self.verdict),
            "status": self.status,
            "checked": self.checked,
            "waiting": self.waiting,
            "seconds": round(self.seconds, 3),
            "chains": [chain.as_dict() for chain in self.chains],
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": self.notes,
        }


def _rank(finding: Finding) -> tuple[bool, int, int]:
    grave = status_of(finding.verdict) != TAMPERED
    return (grave, finding.seq or 2**62, list(Verdict).index(finding.verdict))


def _gravest(verdicts: Iterable[Verdict]) -> Verdict:
    order = list(Verdict)
    ranked = sorted(verdicts, key=lambda one: (one is Verdict.OK, status_of(one) != TAMPERED, order.index(one)))
    return ranked[0] if ranked else Verdict.OK
