"""Many events into the table at once, past the query compiler, which would cost more than the database does."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models
from django.db.models.base import ModelState

from audit.models import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    Converter = Callable[[Any], object]

_FIELDS = Event._meta.concrete_fields
_COLUMNS = ", ".join(f'"{field.column}"' for field in _FIELDS)
_BLANK = {field.attname: field.get_default() for field in _FIELDS if not callable(field.default)}
_encode = DjangoJSONEncoder().encode


def new_event(**values: Any) -> Event:
    """Return an event with these values: id, times and JSON columns among them, the others get their defaults.

    What a model's own constructor does for fifty columns costs more than inserting them.
    """
    event = Event.__new__(Event)
    event.__dict__.update(_BLANK, **values)
    event._state = ModelState()
    return event


def insert(events: Sequence[Event]) -> None:
    """Insert new events in the order given. Call it inside a transaction; an id that exists raises IntegrityError."""
    if not events:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            copying = cursor.copy(f"COPY audit_event ({_COLUMNS}) FROM STDIN")
            # Django wraps what its cursor does itself, and COPY is none of that.
            with connection.wrap_database_errors, copying as copy:
                for row in _rows(events, _POSTGRESQL):
                    copy.write_row(row)
        else:
            places = ", ".join(["%s"] * len(_FIELDS))
            statement = f"INSERT INTO audit_event ({_COLUMNS}) VALUES ({places})"  # noqa: S608
            rows: list[Any] = list(_rows(events, _SQLITE))
            cursor.executemany(statement, rows)
    for event in events:
        event._state.adding = False


def _rows(events: Sequence[Event], converters: dict[type[models.Field[Any, Any]], Converter]) -> Iterator[list[object]]:
    """Yield the columns of each event as the database takes them."""
    plan = [(field.attname, converters.get(type(field))) for field in _FIELDS]
    for event in events:
        values = event.__dict__
        yield [
            value if convert is None or value is None else convert(value)
            for name, convert in plan
            for value in (values[name],)
        ]


def _json(value: object) -> str:
    # Most are empty, and encoding nothing costs as much as encoding little.
    return _encode(value) if value else "{}" if value == {} else "[]"


def _utc_text(at: datetime) -> str:
    return str(at.astimezone(UTC).replace(tzinfo=None))


def _hex(uuid: UUID) -> str:
    return uuid.hex


_SQLITE: dict[type[models.Field[Any, Any]], Converter] = {
    models.JSONField: _json,
    models.DateTimeField: _utc_text,
    models.UUIDField: _hex,
}
_POSTGRESQL: dict[type[models.Field[Any, Any]], Converter] = {models.JSONField: _json}
