"""A sandbox's log as clients read it: its audit, in sentences. What a command was given is not in there."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db.models import Q

from audit import registry
from audit.models import Event, Outcome, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from django.db.models import QuerySet

    from sandboxes.models import Sandbox

LEVELS = ("debug", "info", "warn", "error")
"""From the least to the most serious."""
MAX_ENTRIES = 1000
MAX_SEARCHED = 10_000
"""How many rows a search looks at."""

_BY_SEVERITY = {"info": "info", "notice": "info", "warning": "warn", "critical": "error"}
# Numbers and words of our own. Errors may quote what a caller or a guest said, so they are not among them.
_SHOWN = (
    *("reason", "exit_code", "signal", "pid", "pty", "port", "method", "status", "size", "timeout_ms"),
    *("tier", "profile", "runtime", "on_timeout", "oom_kills", "memory_mib", "pids_refused", "dropped"),
    # A host is told in its canonical form, or not at all.
    *("host", "rule", "bytes_in", "bytes_out", "count"),
)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which entries: from a time on (or back from it), at least of a level, with a text in them."""

    since: datetime | None = None
    backward: bool = False
    limit: int = MAX_ENTRIES
    level: str = LEVELS[0]
    search: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log."""

    at: datetime
    level: str
    message: str
    fields: Mapping[str, str]


def read(sandbox: Sandbox, query: LogQuery) -> Sequence[Entry]:
    """Return the entries, oldest first, or newest first when read backward."""
    found: list[Entry] = []
    if query.limit == 0:
        return found
    for entry in _entries(sandbox, query):
        if query.search.lower() in entry.message.lower():
            found.append(entry)
            if len(found) == query.limit:
                break
    return found


def _entries(sandbox: Sandbox, query: LogQuery) -> Iterator[Entry]:
    scanned = MAX_SEARCHED if query.search else query.limit
    order = ("-at", "-id") if query.backward else ("at", "id")
    for event in _rows(sandbox, query).order_by(*order)[:scanned]:
        yield _entry(event)


def _rows(sandbox: Sandbox, query: LogQuery) -> QuerySet[Event]:
    rows = Event.objects.filter(object_id=sandbox.pk, object_type="sandbox", tenant_id=sandbox.tenant_id)
    # What was meant is said again by what came of it.
    rows = rows.exclude(phase=Phase.INTENT)
    if query.since is not None:
        rows = rows.filter(at__lte=query.since) if query.backward else rows.filter(at__gte=query.since)
    least = LEVELS.index(query.level)
    if least <= LEVELS.index("info"):
        return rows
    codes = [code.code for code in registry.all_codes() if LEVELS.index(_BY_SEVERITY[code.severity]) >= least]
    outcomes = [outcome for outcome in Outcome if LEVELS.index(_outcome_level(outcome)) >= least]
    return rows.filter(Q(code__in=codes) | Q(outcome__in=outcomes))


def _entry(event: Event) -> Entry:
    known = registry.get(event.code) if registry.known(event.code) else None
    severity = _BY_SEVERITY[registry.severity_of(event.code, event.reason)]
    level = max(severity, _outcome_level(event.outcome), key=LEVELS.index)
    return Entry(event.at, level, _sentence(event, known), _fields(event))


def _sentence(event: Event, known: registry.Code | None) -> str:
    if known is None:
        return f"{event.code} in {event.object_id}."
    words = {"actor": event.actor_name or event.actor_id, "object": event.object_id}
    return known.sentence.format_map(defaultdict(lambda: "…", words))


def _fields(event: Event) -> dict[str, str]:
    shown = {"event": event.code}
    if event.outcome:
        shown["outcome"] = str(event.outcome)
    if event.duration_ms is not None:
        shown["duration_ms"] = f"{event.duration_ms:g}"
    details = event.details if isinstance(event.details, dict) else {}
    said = {name: details[name] for name in _SHOWN if isinstance(details.get(name), str | int | float)}
    return shown | {name: str(value)[:200] for name, value in said.items() if value != ""}


def _outcome_level(outcome: str) -> str:
    if outcome == Outcome.ERROR:
        return "error"
    return "info" if outcome in {"", Outcome.OK} else "warn"
