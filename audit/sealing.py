"""Gives events their numbers: a chain of hashes per tenant, and one for the platform.

What the sealer takes is what the database holds, not what was meant to be written. Rows are read and brought into
their canonical form first; the write lock is held only while they are numbered. A killed sealer leaves whole batches.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from django.db import DatabaseError, connection, transaction

from audit import canonical, checkpoints, feed, merkle, producers, recording
from audit.models import PLATFORM_CHAIN, Chain, Unsealed
from corekit import clock
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Row = Sequence[Any]

logger = structlog.get_logger("gatehouse.audit")

BUDGET_S = 0.8
BATCH = {"postgresql": 500, "sqlite": 200}
"""Events in a transaction: few enough that nobody else waits long for the write lock."""
_TENANT = re.compile(r"[0-9a-f]{32}")
_NO_HASH = bytes(32)
_UNREAD: Row = ()
_ID, _TENANT_ID, _PRODUCER = (canonical.COLUMNS.index(name) for name in ("id", "tenant_id", "producer"))
_INSERT = "INSERT INTO audit_seal (chain, seq, event_id, hash) VALUES (%s, %s, %s, %s)"
_COPY = "COPY audit_seal (chain, seq, event_id, hash) FROM STDIN"


class _Waiting(NamedTuple):
    """An event that has no number yet. One that is gone has no body."""

    event_id: str
    chain: str
    producer: str
    body: bytes | None


class _Raced(Exception):
    """Somebody else sealed these events meanwhile."""


def seal(budget_s: float = BUDGET_S) -> int:
    """Seal the events that wait, in their order, until none is left or the time is up; return how many."""
    until = time.monotonic() + budget_s
    sealed, after, limit = 0, 0, BATCH[connection.vendor]
    while True:
        waiting = list(Unsealed.objects.filter(id__gt=after).order_by("id").values_list("id", "event_id")[:limit])
        try:
            sealed += _seal(waiting)
        except _Raced:
            # Whoever was faster goes on.
            return sealed
        if len(waiting) < limit or time.monotonic() > until:
            return sealed
        after = waiting[-1][0]


def _seal(waiting: Sequence[tuple[int, str]]) -> int:
    """Number the events of one batch. Raises _Raced, having done nothing."""
    events = list(_read([event_id for _, event_id in waiting]))
    if not events:
        return 0
    readable = {event.event_id for event in events}
    taken = [number for number, event_id in waiting if event_id in readable]
    with transaction.atomic():
        if not checkpoints.take_turn() or Unsealed.objects.filter(id__in=taken).delete()[0] != len(taken):
            raise _Raced
        present = [event for event in events if event.body is not None]
        for event in events:
            if event.body is None:
                _record_lost(event.event_id)
        chains = _chains(present)
        _insert(list(_number(present, chains)))
        _keep(chains.values())
        producers.count(Counter(event.producer for event in present if event.producer))
        checkpoints.sign_full(chains.values())
    feed.announce(chains)
    return len(present)


def _read(event_ids: Sequence[str]) -> Iterator[_Waiting]:
    """Yield events in the order of their ids. A row that the database can't read is left out and tried again."""
    try:
        rows = _rows(event_ids)
    except DatabaseError:
        rows = _one_by_one(event_ids)
    for event_id in event_ids:
        row = rows.get(event_id, _UNREAD)
        if row is _UNREAD:
            continue
        if row is None:
            yield _Waiting(event_id, PLATFORM_CHAIN, "", None)
        else:
            yield _Waiting(event_id, chain_of(row[_TENANT_ID]), str(row[_PRODUCER]), canonical.body_of(row))


def _rows(event_ids: Sequence[str]) -> dict[str, Row | None]:
    if not event_ids:
        return {}
    places = ", ".join(["%s"] * len(event_ids))
    columns = canonical.select(connection.vendor, "e")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM audit_event e WHERE e.id IN ({places})", event_ids)  # noqa: S608
        return dict.fromkeys(event_ids) | {row[_ID]: row for row in cursor.fetchall()}


def _one_by_one(event_ids: Sequence[str]) -> dict[str, Row | None]:
    found: dict[str, Row | None] = {}
    for event_id in event_ids:
        try:
            with _any_text():
                found |= _rows([event_id])
        except DatabaseError as error:
            logger.error("event_unreadable", event_id=event_id, error=str(error)[:200])
    return found


@contextmanager
def _any_text() -> Iterator[None]:
    """Let SQLite hand out text that isn't UTF-8: such a row gets its number like any other."""
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    database: Any = connection.connection
    database.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        database.text_factory = str


def chain_of(tenant: object) -> str:
    """Return the chain of a tenant's events: its id; the platform's for those without one."""
    name = str(tenant or "").replace("-", "")
    return name if _TENANT.fullmatch(name) else PLATFORM_CHAIN


def _record_lost(event_id: str) -> None:
    """Keep in the chain that a recorded event was taken away before it got its number."""
    recording.record("audit.event_lost", actor=SYSTEM, object_type="event", object_id=event_id, tenant_id=None)


def _chains(events: Sequence[_Waiting]) -> dict[str, Chain]:
    names = {event.chain for event in events}
    return {name: Chain(name=name) for name in names} | Chain.objects.in_bulk(names)


def _number(events: Sequence[_Waiting], chains: dict[str, Chain]) -> Iterator[tuple[str, int, str, str]]:
    """Yield the seals of events, and let their chains grow."""
    trees = {name: merkle.Frontier(chain.size, map(bytes.fromhex, chain.frontier)) for name, chain in chains.items()}
    heads = {name: bytes.fromhex(chain.head) or _NO_HASH for name, chain in chains.items()}
    for event in events:
        name, tree, body = event.chain, trees[event.chain], event.body
        if body is None:
            continue
        head = canonical.chain_hash(name, tree.size + 1, heads[name], body)
        tree.append(head)
        heads[name] = head
        yield name, tree.size, event.event_id, head.hex()
    now = clock.now()
    for name, chain in chains.items():
        chain.size, chain.head, chain.sealed_at = trees[name].size, heads[name].hex(), now
        chain.frontier = [root.hex() for _, root in trees[name].subtrees()]


def _insert(seals: Sequence[tuple[str, int, str, str]]) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            copying = cursor.copy(_COPY)
            # Django wraps what its cursor does itself, and COPY is none of that.
            with connection.wrap_database_errors, copying as copy:
                for row in seals:
                    copy.write_row(row)
        else:
            cursor.executemany(_INSERT, seals)


def _keep(chains: Iterable[Chain]) -> None:
    Chain.objects.bulk_create(
        chains,
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["size", "head", "frontier", "sealed_at"],
    )
