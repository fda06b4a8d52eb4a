"""The audit as a file: JSON lines with proofs that `verify_export.py` checks, or CSV for spreadsheets.

Both are made row by row, so that a file of any size costs the same memory.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import F, OuterRef, Subquery

from audit import canonical, registry, selectors, signing
from audit.models import PLATFORM_CHAIN, Event, PruneRecord, Seal, SigningKey
from audit.proofs import Proof, Prover
from audit.recording import record
from audit.verify_export import FORMAT, NO_HASH
from corekit import clock
from corekit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from django.db.models import QuerySet

    from corekit.actor import Actor

BATCH = 500
FORMATS = {"jsonl": "application/x-ndjson", "csv": "text/csv"}
_CSV = (
    *("id", "at", "received_at", "chain", "seq", "code", "message", "severity", "phase", "ref", "tenant_id"),
    *("actor_kind", "actor_id", "actor_name", "actor_auth", "on_behalf_of", "token_id", "origin", "user_agent"),
    *("object_type", "object_id", "object_name", "sandbox_id", "generation", "tier", "policy_version", "node_id"),
    *("outcome", "decision", "status", "reason", "duration_ms", "tool_name", "args_hash", "args_key_id", "args_size"),
    *("risk_score", "risk_band", "risk_tier", "risk_ruleset", "risk_reasons", "host", "request_id", "trace_id"),
    *("span_id", "run_id", "producer", "producer_seq", "details"),
)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def export(*, actor: Actor, query: Mapping[str, Any], form: str, proven: bool = False) -> Iterator[str]:
    """Write down who exports what, and return the lines. Raises Forbidden without the scope.

    The event of the export itself is not among them.
    """
    events = selectors.events_for(actor, query).filter(received_at__lt=clock.now())
    tenant_id = UUID(actor.tenant_id) if actor.tenant_id else query.get("tenant_id")
    # All events of a tenant are a whole chain, and nothing in it may be missing.
    filters = {name: str(value) for name, value in query.items() if name != "tenant_id"}
    record(
        "audit.exported",
        actor=actor,
        object_type="audit",
        object_id=tenant_id.hex if tenant_id else "all",
        tenant_id=tenant_id,
        details={"format": form, "filters": sorted(filters), "events": events.count()},
    )
    return table(events) if form == "csv" else jsonl(events, filters, proven=proven)


def jsonl(events: QuerySet[Event], filters: Mapping[str, str], *, proven: bool = False) -> Iterator[str]:
    """Yield the lines of an export with proofs, in the order of the chains.

    `proven` leaves out what is newer than the last checkpoint. `filters` are told in the header: where there are some,
    left out events are no gap.
    """
    yield _line({"header": _header(filters)})
    if not filters:
        yield from _prune_records(events)
    writer = _Writer(proven=proven)
    batch: list[Event] = []
    for event in _in_order(events).iterator(chunk_size=BATCH):
        batch.append(event)
        if len(batch) == BATCH:
            yield from writer.lines(batch)
            batch = []
    yield from writer.lines(batch)
    yield _line({"end": {"events": writer.written}})


def table(events: QuerySet[Event]) -> Iterator[str]:
    """Yield the lines of an export as CSV, safe to open in a spreadsheet."""
    yield _csv_line(_CSV)
    for event in _in_order(events).iterator(chunk_size=BATCH):
        yield _csv_line([_cell(_value(event, name)) for name in _CSV])


class _Writer:
    """Writes events with their places and proofs, and each checkpoint before the first event that needs it."""

    def __init__(self, *, proven: bool) -> None:
        self._proven = proven
        self._provers: dict[str, Prover] = {}
        self._told: set[tuple[str, int]] = set()
        self.written = 0

    def lines(self, events: Sequence[Event]) -> Iterator[str]:
        """Yield the lines of some events that follow each other."""
        before = _hashes_before(events)
        for event in events:
            chain, seq = event.chain, event.seq  # type: ignore[attr-defined]  # `_in_order` adds them
            proof = self._prove(chain, seq) if seq else None
            if proof is None and self._proven:
                continue
            if proof and (chain, proof.size) not in self._told:
                self._told.add((chain, proof.size))
                yield _line({"checkpoint": proof.note})
            self.written += 1
            yield _line(_event_line(event, before.get((chain, seq - 1), NO_HASH.hex()) if seq else "", proof))

    def _prove(self, chain: str, seq: int) -> Proof | None:
        prover = self._provers.get(chain)
        if prover is None:
            # Events come chain by chain: what an earlier one needed is not needed again.
            self._provers = {chain: (prover := Prover(chain))}
        return prover.prove(seq)


def proof_of(event: Event) -> dict[str, Any]:
    """Return one event as a line of an export has it, with the checkpoint that covers it. Raises NotFound.

    This reads the hashes of all events of the chain before it.
    """
    placed = _in_order(Event.objects.filter(pk=event.pk)).get()
    chain, seq = placed.chain, placed.seq  # type: ignore[attr-defined]  # `_in_order` adds them
    if seq is None:
        raise NotFound("This event is not sealed yet: ask again in a second.")
    proof = Prover(chain).prove(seq)
    before = _hashes_before([placed]).get((chain, seq - 1), NO_HASH.hex())
    return _event_line(placed, before, proof) | {"checkpoint": proof.note if proof else None}


def _event_line(event: Any, before: str, proof: Proof | None) -> dict[str, Any]:
    line = {"event": canonical.document(event), "chain": event.chain, "seq": event.seq}
    line |= {"prev": before or None, "hash": event.hash, "proof": None}
    if proof:
        line["proof"] = {"size": proof.size, "path": [base64.b64encode(step).decode() for step in proof.path]}
    return line


def _in_order(events: QuerySet[Event]) -> QuerySet[Event]:
    """Return events chain by chain in the order of their numbers, those without one last."""
    seal = Seal.objects.filter(event_id=OuterRef("pk"))
    places = {name: Subquery(seal.values(name)[:1]) for name in ("chain", "seq", "hash")}
    order = (F("chain").asc(nulls_last=True), F("seq").asc(nulls_last=True), "pk")
    return events.order_by().annotate(**places).order_by(*order)


def _hashes_before(events: Sequence[Any]) -> dict[tuple[str, int], str]:
    """Return the hashes of the numbers before those of some events."""
    wanted: dict[str, list[int]] = {}
    for event in events:
        if event.seq and event.seq > 1:
            wanted.setdefault(event.chain, []).append(event.seq - 1)
    return {
        (chain, seq): found
        for chain, numbers in wanted.items()
        for seq, found in Seal.objects.filter(chain=chain, seq__in=numbers).values_list("seq", "hash")
    }


def _header(filters: Mapping[str, str]) -> dict[str, Any]:
    # The keys are for finding one's way. Whoever checks the file takes the key from elsewhere.
    keys = SigningKey.objects.order_by("created_at").values_list("id", "public_key")
    return {
        "format": FORMAT,
        "v": 1,
        "installation": signing.installation_id(),
        "exported_at": clock.to_rfc3339(clock.now()),
        "filters": dict(filters),
        "keys": [{"id": key_id, "public_key": public_key} for key_id, public_key in keys],
    }


def _prune_records(events: QuerySet[Event]) -> Iterator[str]:
    """Yield the signed records of what the chains of these events lost to the retention."""
    tenants = set(events.order_by().values_list("tenant_id", flat=True).distinct())
    chains = [tenant_id.hex if tenant_id else PLATFORM_CHAIN for tenant_id in tenants]
    for note in PruneRecord.objects.filter(chain__in=chains).order_by("pk").values_list("note", flat=True):
        yield _line({"pruned": note})


def _value(event: Any, name: str) -> object:
    if name == "message":
        return registry.sentence(event.code, actor=event.actor_name, target=event.object_id)
    if name == "severity":
        return registry.severity_of(event.code, event.reason)
    return getattr(event, name)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return canonical.moment(value)
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, sort_keys=True) if value else ""
    if isinstance(value, int | float):
        return str(value)
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
