"""Reads the database as it was at one moment, past the ORM: rows arrive in whatever state somebody left them."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from django.db import connection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH = 1000
READ_ERRORS = (sqlite3.Error, psycopg.Error)
"""What reading raises when a table is gone or the file is broken."""


class Snapshot(Protocol):
    """One moment of the database, read only."""

    vendor: str

    def rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows as they are stored; the SQL has `%s` for values. Raises one of READ_ERRORS."""
        ...


class BrokenTextError(Exception):
    """SQLite holds text that isn't UTF-8. Open it once more, for any text: that takes longer."""


@contextmanager
def snapshot(*, any_text: bool = False) -> Iterator[Snapshot]:
    """Open the database that the settings name. What is added meanwhile doesn't show."""
    opened = _postgresql() if connection.vendor == "postgresql" else _sqlite(any_text=any_text)
    with opened as found:
        yield found


class _Sqlite:
    vendor = "sqlite"

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            cursor = self._database.execute(sql.replace("%s", "?"), list(values))
            while batch := cursor.fetchmany(BATCH):
                yield from batch
        except sqlite3.OperationalError as error:
            if "decode" in str(error):
                raise BrokenTextError from error
            raise


@contextmanager
def _sqlite(*, any_text: bool) -> Iterator[Snapshot]:
    path = str(connection.settings_dict["NAME"])
    # A connection of our own: the application's begin their transactions with the write lock.
    database = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, isolation_level=None, timeout=30)
    try:
        if any_text:
            database.text_factory = _text
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("BEGIN")
        yield _Sqlite(database)
    finally:
        database.close()


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _text(data: bytes) -> str:
    """Take text that isn't UTF-8 as well: the row of such text is one to name, not to stumble over."""
    return data.decode("utf-8", "surrogateescape")


class _Postgresql:
    vendor = "postgresql"

    def __init__(self, database: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._database = database
        self._opened = 0

    def rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        self._opened += 1
        # A cursor of the server: the client would read the whole answer at once.
        with self._database.cursor(f"audit_{self._opened}") as cursor:
            # Only what fails here is undone, so that the other tables can still be read.
            with self._database.transaction():
                cursor.execute(sql.encode(), list(values))
            while batch := cursor.fetchmany(BATCH):
                yield from batch


@contextmanager
def _postgresql() -> Iterator[Snapshot]:
    parameters = dict(connection.get_connection_params())
    for name in ("cursor_factory", "context", "pool", "prepare_threshold"):
        parameters.pop(name, None)
    with psycopg.connect(**parameters, autocommit=True) as database:
        database.execute("SET TIME ZONE 'UTC'")
        database.execute("SET DateStyle TO 'ISO'")
        database.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield _Postgresql(database)
