"""Collects the signed checkpoints of a chain: from the database, from the anchors' folder, from files at hand."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit import checkpoints
from audit.verification.findings import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from audit.verification.snapshot import Snapshot

DATABASE, ANCHOR, FILE = "the database", "the anchor", "a file"
_ROWS = "SELECT size, root, note, leaves, id FROM audit_checkpoint WHERE chain = %s ORDER BY id"


@dataclass(frozen=True, slots=True)
class Statement:
    """A checkpoint that a trusted key signed, the hashes beside it, and where it lies."""

    place: str
    size: int
    root: bytes
    hash: str
    """The hash of its note, by which the next one names it."""
    previous: str
    """The hash of the checkpoint before it; empty for the first."""
    leaves: bytes
    row: int = 0


@dataclass(frozen=True, slots=True)
class Sources:
    """Where checkpoints are looked for besides the database."""

    anchors: Path | None
    notes: Sequence[str]
    keys: Sequence[bytes]


def collect(snapshot: Snapshot, chain: str, sources: Sources) -> tuple[list[Statement], list[Finding]]:
    """Return the statements that count and what is wrong with the others."""
    statements: list[Statement] = []
    findings: list[Finding] = []
    for size, root, note, leaves, row in list(snapshot.rows(_ROWS, (chain,))):
        found = _read(DATABASE, note, _blob(leaves), chain, sources.keys, row if isinstance(row, int) else 0)
        if found is None:
            findings.append(_unsigned(DATABASE, size))
            continue
        statements.append(found)
        if size != found.size or root != found.root.hex():
            note = "the row does not say what was signed in its note"
            findings.append(Finding(Verdict.CHECKPOINT_EDITED, note, seq=found.size))
    for line, note, leaves in _anchored(sources.anchors, chain):
        found = _read(ANCHOR, note, leaves, chain, sources.keys)
        if found is None:
            findings.append(_unsigned(f"line {line} of the anchor", 0))
        else:
            statements.append(found)
    for note in sources.notes:
        found = _read(FILE, note, b"", chain, sources.keys)
        if found is not None:
            statements.append(found)
    findings += _lost(statements)
    return statements, findings


def chains_in(anchors: Path | None) -> list[str]:
    """Return the chains that an anchors' folder speaks of."""
    return sorted(path.stem for path in anchors.glob("*.jsonl")) if anchors and anchors.is_dir() else []


def _read(place: str, note: object, leaves: bytes, chain: str, keys: Sequence[bytes], row: int = 0) -> Statement | None:
    """Return what a note says; None unless a trusted key signed it and it is about this chain."""
    said = checkpoints.read(note, keys) if isinstance(note, str) else None
    if said is None or said.chain != chain:
        return None
    return Statement(place, said.size, said.root, checkpoints.note_hash(str(note)), said.previous, leaves, row)


def _anchored(folder: Path | None, chain: str) -> Iterator[tuple[int, object, bytes]]:
    """Yield the lines of a chain's file: number, note, hashes. What can't be read has no note."""
    path = folder / f"{chain}.jsonl" if folder else None
    if path is None or not path.is_file():
        return
    with path.open("rb") as lines:
        for number, text in enumerate(lines, 1):
            if not text.endswith(b"\n"):
                # The writer was cut off, and will write the line again.
                return
            try:
                line: Any = json.loads(text)
                yield number, line["note"], base64.b64decode(line["leaves"], validate=True)
            except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
                yield number, None, b""


def _lost(statements: Sequence[Statement]) -> list[Finding]:
    """Name checkpoints that one place has and the other lost."""
    here = {one.size: one for one in statements if one.place == DATABASE}
    there = {one.size for one in statements if one.place == ANCHOR}
    findings = [
        Finding(Verdict.CHECKPOINT_MISSING, f"the database lost the checkpoint of {size} events", seq=size)
        for size in sorted(there - here.keys())
    ]
    # Anchors are written in order: what lies before their last line was there.
    findings += [
        Finding(Verdict.UNANCHORED, f"the anchor lost the checkpoint of {size} events", seq=size)
        for size in sorted(here.keys() - there)
        if size < max(there, default=0)
    ]
    return findings


def _unsigned(place: str, size: object) -> Finding:
    seq = size if isinstance(size, int) and 0 < size < 2**63 else 0
    return Finding(Verdict.BAD_SIGNATURE, f"no trusted key signed the checkpoint in {place}", seq=seq)


def _blob(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return bytes(value) if isinstance(value, bytes | memoryview) else b""
