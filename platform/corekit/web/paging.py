"""Pages by keyset: a page costs the same wherever it lies, and what comes and goes meanwhile shifts nothing."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db.models import Model, Q

from corekit import clock
from corekit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import QuerySet

Row = TypeVar("Row", bound=Model)

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
_LONGEST_CURSOR = 1000
_FIELD = re.compile(r"-?[a-z_]+")


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is sorted: fields that together name one row, a `-` before those that descend.

    All of them lie in one index, in these directions or in just the opposite ones.
    """

    fields: tuple[str, ...]

    def reversed(self) -> Order:
        """Return the opposite order, which the same index serves."""
        return Order(tuple(name[1:] if name.startswith("-") else f"-{name}" for name in self.fields))


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list, and the cursor of the rows after them; None when these are the last."""

    rows: Sequence[Row]
    next: str | None


def page(rows: QuerySet[Row], order: Order, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[Row]:
    """Return one page with one query. Raises InvalidInput for a cursor that this list did not give out."""
    if cursor:
        rows = rows.filter(_beyond(order, _decode(rows.model, order, cursor)))
    found = list(rows.order_by(*order.fields)[: limit + 1])
    shown = found[:limit]
    return Page(shown, _encode(order, shown[-1]) if len(found) > limit else None)


def _beyond(order: Order, values: Sequence[Any]) -> Q:
    """Return the condition for the rows after these values.

    The first half alone lets the database jump into its index.
    """
    first, *_ = order.fields
    after = Q()
    equal = Q()
    for name, value in zip(order.fields, values, strict=True):
        after |= equal & Q(**{_compare(name, "lt" if name.startswith("-") else "gt"): value})
        equal &= Q(**{name.lstrip("-"): value})
    return Q(**{_compare(first, "lte" if first.startswith("-") else "gte"): values[0]}) & after


def _compare(name: str, how: str) -> str:
    return f"{name.lstrip('-')}__{how}"


def _encode(order: Order, row: Model) -> str:
    values = [getattr(row, name.lstrip("-")) for name in order.fields]
    shown = [value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value) for value in values]
    return base64.urlsafe_b64encode(json.dumps([*order.fields, *shown]).encode()).rstrip(b"=").decode()


def _decode(model: type[Model], order: Order, cursor: str) -> Sequence[Any]:
    try:
        if len(cursor) > _LONGEST_CURSOR:
            raise ValueError("too long")
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        count = len(order.fields)
        if not isinstance(parts, list) or tuple(parts[:count]) != order.fields or len(parts) != 2 * count:
            raise ValueError("another list's")
        return [_value(model, name, text) for name, text in zip(order.fields, parts[count:], strict=True)]
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        raise InvalidInput("This list did not give out this cursor.", field="cursor") from error


def _value(model: type[Model], name: str, text: object) -> Any:
    if not isinstance(text, str) or not text.isprintable():
        raise ValueError("not a text")
    kind = model._meta.get_field(name.lstrip("-")).get_internal_type()
    if kind == "DateTimeField":
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("no time zone")
        return clock.from_ms(0) + (at - clock.from_ms(0))
    if kind in {"BigAutoField", "ForeignKey", "PositiveIntegerField"}:
        number = int(text)
        if not 0 <= number < 2**63:
            raise ValueError("no key of a row")
        return number
    return text
