"""What may only be added to: the tables, who may add, and the triggers by which the database itself refuses the rest.

A superuser of the database can switch triggers off. That such a one was at work is what the signed checkpoints outside
the database show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

ADDED_BY: dict[str, frozenset[str]] = {
    "audit_event": frozenset({"web", "worker"}),
    "audit_seal": frozenset({"worker"}),
    "audit_checkpoint": frozenset({"worker"}),
    "audit_signingkey": frozenset({"worker"}),
    "audit_prunerecord": frozenset({"worker"}),
    "audit_prunerange": frozenset({"worker"}),
}
"""Append-only table → the services that may insert. All may read; nobody may change or truncate."""

WORKER_ONLY = frozenset({"audit_anchorposition", "audit_chain", "audit_producer"})
"""Tables that change and that web only reads."""

WAITING = "audit_unsealed"
"""The queue of the sealer: web's inserts fill it, and only the worker takes from it."""

DELETABLE_WHEN_PRUNED = "audit_event"
"""The one table whose rows may be deleted: those that a prune record names."""

_PRUNED = (
    "EXISTS (SELECT 1 FROM audit_seal s JOIN audit_prunerange r"
    " ON r.chain = s.chain AND s.seq BETWEEN r.first AND r.last WHERE s.event_id = OLD.id)"
)


def install(connection: BaseDatabaseWrapper) -> None:
    """Create the triggers that are missing: against changes, and one that notes each new event for the sealer."""
    _execute(connection, _postgresql() if connection.vendor == "postgresql" else _sqlite())


def remove(connection: BaseDatabaseWrapper) -> None:
    """Drop the triggers, as before a migration that rebuilds a table."""
    names = [(f"{table}_{what}", table) for table in ADDED_BY for what in ("no_update", "no_delete", "no_truncate")]
    names.append(("audit_event_unsealed", "audit_event"))
    on_table = connection.vendor == "postgresql"
    _execute(
        connection,
        (f"DROP TRIGGER IF EXISTS {name}" + (f" ON {table}" if on_table else "") for name, table in names),
    )


def _sqlite() -> Iterator[str]:
    for table in ADDED_BY:
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        unless = f" WHEN NOT {_PRUNED}" if table == DELETABLE_WHEN_PRUNED else ""
        yield f"CREATE TRIGGER IF NOT EXISTS {table}_no_update BEFORE UPDATE ON {table} {refuse}"
        yield f"CREATE TRIGGER IF NOT EXISTS {table}_no_delete BEFORE DELETE ON {table}{unless} {refuse}"
    yield (
        "CREATE TRIGGER IF NOT EXISTS audit_event_unsealed AFTER INSERT ON audit_event"
        " BEGIN INSERT INTO audit_unsealed (event_id) VALUES (NEW.id); END"
    )


def _postgresql() -> Iterator[str]:
    yield (
        "CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; END $$"
    )
    yield (
        "CREATE OR REPLACE FUNCTION audit_refuse_unless_pruned() RETURNS trigger LANGUAGE plpgsql AS $$"
        f" BEGIN IF {_PRUNED} THEN RETURN OLD; END IF;"
        " RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; END $$"
    )
    yield (
        "CREATE OR REPLACE FUNCTION audit_note_unsealed() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN INSERT INTO audit_unsealed (event_id) SELECT id FROM added; RETURN NULL; END $$"
    )
    for table in ADDED_BY:
        on_delete = "audit_refuse_unless_pruned" if table == DELETABLE_WHEN_PRUNED else "audit_refuse"
        yield (
            f"CREATE OR REPLACE TRIGGER {table}_no_update BEFORE UPDATE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION audit_refuse()"
        )
        yield (
            f"CREATE OR REPLACE TRIGGER {table}_no_delete BEFORE DELETE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION {on_delete}()"
        )
        yield (
            f"CREATE OR REPLACE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
        )
    # One statement for all rows that an INSERT adds: events come in batches.
    yield (
        "CREATE OR REPLACE TRIGGER audit_event_unsealed AFTER INSERT ON audit_event REFERENCING NEW TABLE AS added"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_note_unsealed()"
    )


def _execute(connection: BaseDatabaseWrapper, statements: Iterator[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
