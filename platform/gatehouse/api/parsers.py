"""The API reads JSON only, and only JSON that no layer below could stumble over."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import IO, TYPE_CHECKING, Any, NoReturn

from django.conf import settings
from rest_framework.parsers import BaseParser

from corekit.errors import InvalidInput, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH = 32
MAX_VALUES = 100_000
_MAX_INTEGER = 2**63 - 1


class StrictJsonParser(BaseParser):
    """Parse a JSON body within limits of size, depth and count; errors name the field.

    Refused are also NaN, repeated names, NUL characters, half surrogate pairs and integers beyond 64 bits: they are
    legal for Python but not for the databases.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the parsed body; an empty one is an empty object, as the E2B clients expect."""
        body = stream.read(settings.API_MAX_BODY_BYTES + 1)
        if len(body) > settings.API_MAX_BODY_BYTES:
            raise TooLarge(f"The body is larger than {settings.API_MAX_BODY_BYTES} bytes.")
        return parse_json(body) if body.strip() else {}


def parse_json(body: bytes) -> object:
    """Parse and check a JSON text. Raises InvalidInput."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InvalidInput("The body is not UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InvalidInput(f"The body is not JSON: {error.msg} at character {error.pos}.") from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise InvalidInput("The body holds a number that is too long.") from error
    except RecursionError as error:
        raise InvalidInput(f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    _check(value, "", 0, [MAX_VALUES])
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = counts.most_common(1)[0][0]
        raise InvalidInput(f"The name {repeated[:100]!r} is given twice.", field=repeated[:100])
    return result


def _no_constant(name: str) -> NoReturn:
    raise InvalidInput(f"{name} is not a JSON number.")


def _check(value: object, path: str, depth: int, budget: list[int]) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        raise InvalidInput(f"The body holds more than {MAX_VALUES} values.")
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, int | float):
        # 1e999 is legal JSON and becomes infinity, which is not.
        fits = math.isfinite(value) if isinstance(value, float) else -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER
        if not fits:
            raise InvalidInput(f"{path or 'The body'} is out of range.", field=path[:200] or None)
    elif isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            raise InvalidInput(f"The body is nested deeper than {MAX_DEPTH} levels.", field=path[:200] or None)
        if isinstance(value, dict):
            for name, inner in value.items():
                _check_text(name, path)
                _check(inner, f"{path}.{name}" if path else name, depth + 1, budget)
        else:
            for index, inner in enumerate(value):
                _check(inner, f"{path}[{index}]", depth + 1, budget)


def _check_text(value: str, path: str) -> None:
    if "\x00" in value:
        raise InvalidInput(f"{path or 'The body'} contains a NUL character.", field=path[:200] or None)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{path or 'The body'} contains half a surrogate pair.", field=path[:200] or None) from error
