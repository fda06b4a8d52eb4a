"""Looks for rows that have no place: events without a seal, seals with impossible numbers, queue entries of nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit import canonical
from audit.canonical import COLUMNS, body_of, chain_hash
from audit.models import PLATFORM_CHAIN
from audit.verification.findings import Finding, Verdict
from audit.verification.snapshot import READ_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.verification.findings import Report
    from audit.verification.snapshot import Snapshot
    from audit.verification.walking import Misfit

MAX_KEPT = 1000
_ID, _TENANT, _CODE, _AT = (COLUMNS.index(name) for name in ("id", "tenant_id", "code", "at"))
_NOWHERE = (
    " FROM audit_event e WHERE NOT EXISTS (SELECT 1 FROM audit_seal s WHERE s.event_id = e.id)"
    " AND e.id NOT IN (SELECT u.event_id FROM audit_unsealed u WHERE u.event_id IS NOT NULL)"
)
_ALIKE = " FROM audit_event e WHERE e.code = %s AND e.at = %s AND e.id <> %s"
_QUEUED_NOTHING = (
    "SELECT u.event_id FROM audit_unsealed u"
    " WHERE NOT EXISTS (SELECT 1 FROM audit_event e WHERE e.id = u.event_id)"
    " AND NOT EXISTS (SELECT 1 FROM audit_seal s WHERE s.event_id = u.event_id)"
)
_WAITING = "SELECT COUNT(*) FROM audit_unsealed"
_ODD_SEALS = "SELECT seq, event_id FROM audit_seal WHERE chain = %s AND (seq IS NULL OR NOT (seq >= 1 AND seq <= %s))"
_NOBODYS_SEALS = "SELECT seq, event_id FROM audit_seal WHERE chain IS NULL"


class Orphans:
    """Events that are neither sealed nor waiting for it. Read once, when somebody first asks."""

    def __init__(self, database: Snapshot) -> None:
        self._database = database
        self._columns = canonical.select(database.vendor, "e")
        self._rows: list[tuple[Any, ...]] | None = None
        self._explained: set[str] = set()

    def fitting(self, chain: str, misfit: Misfit) -> str:
        """Return the id of the event that once had a number whose seal is gone; empty when there is none."""
        for row in self._all():
            event_id = str(row[_ID])
            if event_id in self._explained or chain_of(row[_TENANT]) != chain:
                continue
            if misfit.expected is None or self._has_hash(chain, misfit, row):
                self._explained.add(event_id)
                return event_id
        return ""

    def findings(self) -> Iterable[Finding]:
        """Yield what the events without a place are: a copy of another one, or put in."""
        for row in self._all():
            event_id = str(row[_ID])
            if event_id in self._explained:
                continue
            original = self._original(row)
            if original:
                note = f"this event says the same as {original} and has no number"
                yield Finding(Verdict.DUPLICATED, note, event_id=event_id)
            else:
                yield Finding(Verdict.INSERTED, "this event was never given a number", event_id=event_id)

    def _all(self) -> list[tuple[Any, ...]]:
        if self._rows is None:
            rows = self._database.rows(f"SELECT {self._columns}{_NOWHERE}")
            self._rows = [row for _, row in zip(range(MAX_KEPT), rows, strict=False)]
        return self._rows

    def _has_hash(self, chain: str, misfit: Misfit, row: tuple[Any, ...]) -> bool:
        if misfit.previous is None:
            return False
        return chain_hash(chain, misfit.seq, misfit.previous, body_of(row)) == misfit.expected

    def _original(self, row: tuple[Any, ...]) -> str:
        """Return the id of an event that differs in nothing but its id."""
        own = _nameless(row)
        for other in list(self._database.rows(f"SELECT {self._columns}{_ALIKE}", (row[_CODE], row[_AT], row[_ID]))):
            if _nameless(other) == own:
                return str(other[_ID])
        return ""


def look(database: Snapshot, orphans: Orphans, report: Report) -> None:
    """Add what has no place in any chain to a report."""
    try:
        ((report.waiting,),) = database.rows(_WAITING)
        for _, (event_id,) in zip(range(MAX_KEPT), database.rows(_QUEUED_NOTHING), strict=False):
            note = "this event was waiting for its number and is gone"
            report.findings.append(Finding(Verdict.MISSING, note, event_id=str(event_id)))
        for seq, event_id in list(database.rows(_NOBODYS_SEALS)):
            report.findings.append(_odd(seq, event_id))
        report.findings += orphans.findings()
    except READ_ERRORS as error:
        report.findings.append(unreadable("a table of the ledger", error))


def odd_seals(database: Snapshot, chain: str, last: int) -> list[Finding]:
    """Return what is wrong with seals whose number can't be: none, below one, or far beyond the end."""
    return [_odd(seq, event_id) for seq, event_id in list(database.rows(_ODD_SEALS, (chain, last)))[:MAX_KEPT]]


def unreadable(what: str, error: Exception) -> Finding:
    """Return the finding of a table that can't be read."""
    return Finding(Verdict.MISSING, f"{what} can't be read: {' '.join(str(error).split())[:200]}")


def chain_of(tenant_id: object) -> str:
    """Return the chain of an event, from its raw column."""
    return PLATFORM_CHAIN if tenant_id is None else str(tenant_id).replace("-", "")


def _nameless(row: tuple[Any, ...]) -> bytes:
    return body_of(row).replace(str(row[_ID]).encode("utf-8", "replace"), b"")


def _odd(seq: object, event_id: object) -> Finding:
    return Finding(Verdict.INSERTED, f"a seal has the impossible number {str(seq)[:40]!r}", event_id=str(event_id))
