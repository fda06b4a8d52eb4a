"""Somebody with all rights on the database, who knows the tables: switches triggers off and writes raw SQL."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, connection

from audit import appendonly
from audit.models import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.audit.ledgers import Ledger

_COLUMNS: list[str] = [str(field.column) for field in Event._meta.concrete_fields]
_FAR = 1000


@contextlib.contextmanager
def triggers_off() -> Iterator[None]:
    """Switch the triggers off for a while."""
    appendonly.remove(connection)
    try:
        yield
    finally:
        appendonly.install(connection)


def run(sql: str, *values: Any) -> None:
    """Run one statement without triggers."""
    with triggers_off(), connection.cursor() as cursor:
        cursor.execute(sql, list(values))


def change(table: str, key: object, column: str, value: object) -> None:
    """Set one column of one row."""
    run(f"UPDATE {table} SET {column} = %s WHERE id = %s", value, key)  # noqa: S608


def read(sql: str, *values: Any) -> Any:
    """Return the first column of the first row."""
    with connection.cursor() as cursor:
        cursor.execute(sql, list(values))
        return cursor.fetchone()[0]


def flip_byte(event_id: str, column: str) -> None:
    """Change one byte of a column, or fill an empty one."""
    kind = Event._meta.get_field(column).get_internal_type()
    number = {"PositiveSmallIntegerField", "PositiveIntegerField", "PositiveBigIntegerField", "BigIntegerField"}
    if kind in number | {"FloatField"}:
        changed = f"COALESCE({column} + 1, 1)"
    elif kind == "DateTimeField":
        earlier = f"{column} - interval '1 microsecond'", f"substr({column}, 1, 3) || '9' || substr({column}, 5)"
        changed = earlier[0] if connection.vendor == "postgresql" else earlier[1]
    else:
        fresh = {"JSONField": '{"x": 1}', "UUIDField": "ab" * 16, "GenericIPAddressField": "192.0.2.9"}
        run(f"UPDATE audit_event SET {column} = %s WHERE id = %s", fresh.get(kind, "~"), event_id)  # noqa: S608
        return
    run(f"UPDATE audit_event SET {column} = {changed} WHERE id = %s", event_id)  # noqa: S608


def erase(event_id: str) -> None:
    """Delete an event with everything that shows that it was."""
    run("DELETE FROM audit_event WHERE id = %s", event_id)
    run("DELETE FROM audit_seal WHERE event_id = %s", event_id)
    run("DELETE FROM audit_unsealed WHERE event_id = %s", event_id)


def cut(ledger: Ledger, keep: int) -> None:
    """Delete the end of a chain, and set its head back."""
    size = ledger.size
    for seq in range(keep + 1, size + 1):
        erase(ledger.event_id(seq))
    last = ledger.hash_of(keep) if keep else ""
    run("UPDATE audit_chain SET size = %s, head = %s WHERE name = %s", keep, last, ledger.chain)
    run("UPDATE audit_chain SET checkpoint_size = size WHERE name = %s AND checkpoint_size > size", ledger.chain)


def swap(ledger: Ledger, how: str, one: int, other: int) -> None:
    """Exchange two rows: the numbers of their seals, the events that the seals name, or what the events say."""
    first, second = ledger.event_id(one), ledger.event_id(other)
    if how == "numbers":
        table, column, steps = "audit_seal", "seq", ((-1, "event_id", first), (one, "event_id", second))
        for value, key, row in (*steps, (other, "event_id", first)):
            run(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", value, row)  # noqa: S608
        return
    table, column = ("audit_seal", "event_id") if how == "events" else ("audit_event", "id")
    for old, new in ((first, "0" * 32), (second, first), ("0" * 32, second)):
        run(f"UPDATE {table} SET {column} = %s WHERE {column} = %s", new, old)  # noqa: S608


def copy_event(event_id: str, new_id: str, **changes: str) -> None:
    """Add a copy of an event under another id, past the queue."""
    rest = [name for name in _COLUMNS if name != "id"]
    taken = ", ".join("%s" if name in changes else name for name in rest)
    values = [changes[name] for name in rest if name in changes]
    run(
        f"INSERT INTO audit_event (id, {', '.join(rest)}) SELECT %s, {taken} FROM audit_event WHERE id = %s",  # noqa: S608
        new_id,
        *values,
        event_id,
    )


def make_room(ledger: Ledger, seq: int) -> None:
    """Move all seals from a number on by one."""
    run("UPDATE audit_seal SET seq = seq + %s WHERE chain = %s AND seq >= %s", _FAR, ledger.chain, seq)
    run("UPDATE audit_seal SET seq = seq - %s WHERE chain = %s AND seq > %s", _FAR - 1, ledger.chain, _FAR)


def seal(ledger: Ledger, seq: int, event_id: str, hash_text: str) -> None:
    """Add a seal."""
    run(
        "INSERT INTO audit_seal (chain, seq, event_id, hash) VALUES (%s, %s, %s, %s)",
        *(ledger.chain, seq, event_id, hash_text),
    )


def chain_again(ledger: Ledger, first: int) -> None:
    """Recompute all hashes from a number on, as the sealer does, and the head with them."""
    from audit.canonical import body, chain_hash

    previous = bytes.fromhex(ledger.hash_of(first - 1)) if first > 1 else bytes(32)
    for seq in range(first, ledger.size + 1):
        event = Event.objects.get(pk=ledger.event_id(seq))
        previous = chain_hash(ledger.chain, seq, previous, body(event))
        run("UPDATE audit_seal SET hash = %s WHERE event_id = %s", previous.hex(), event.pk)
    run("UPDATE audit_chain SET head = %s WHERE name = %s", previous.hex(), ledger.chain)


def force(sql: str, value: object) -> bool:
    """Run a statement as somebody does who has dropped the constraints; say whether the database took it."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA ignore_check_constraints = ON")
        try:
            run(sql, value)
        except DatabaseError:
            return False
        finally:
            if connection.vendor == "sqlite":
                cursor.execute("PRAGMA ignore_check_constraints = OFF")
    return True


@contextlib.contextmanager
def without_table(table: str) -> Iterator[None]:
    """Take a table away for a while."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO hidden_away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE hidden_away RENAME TO {table}")
