"""Strict readers of a request's fields. Each returns a checked value or raises InvalidInput naming the field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, overload

from corekit.errors import InvalidInput, NotYetAvailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_NAME = 200
MAX_METADATA_PAIRS = 64
MAX_METADATA_KEY = 128
MAX_METADATA_VALUE = 4096
MAX_METADATA_TOTAL = 16 * 1024
MAX_ENV_PAIRS = 256
MAX_ENV_TOTAL = 128 * 1024
MAX_HOST = 253
MAX_PORTS = 100
AGENT_PORT = 49983
_LAST_PORT = 65535
_HOST_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*(?::(?P<port>[0-9]{{1,5}}))?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")


def as_object(data: object) -> Mapping[str, object]:
    """Return the body as an object."""
    if not isinstance(data, dict):
        raise InvalidInput("The body must be a JSON object.")
    return data


def integer(data: Mapping[str, object], name: str, *, default: int | None, minimum: int) -> int:
    """Return a whole number of at least `minimum`. A default of None makes the field required.

    Refused are texts, fractions and true or false, which Python would count as 1 and 0.
    """
    value = data.get(name)
    if name not in data:
        if default is None:
            raise InvalidInput(f"{name} is required.", field=name)
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} must be a whole number.", field=name)
    if value < minimum:
        raise InvalidInput(f"{name} must be at least {minimum}.", field=name, minimum=minimum)
    return value


def timeout(data: Mapping[str, object], *, default: int | None) -> int:
    """Return a lifetime in seconds, at least 1. The longest one is the tenant's to say."""
    value = integer(data, "timeout", default=default, minimum=-(2**63))
    if value <= 0:
        raise InvalidInput("Timeout must be greater than 0", field="timeout", minimum=1)
    return value


def name(data: Mapping[str, object], field: str) -> str:
    """Return a required, not empty name of at most 200 characters."""
    value = data.get(field)
    if field not in data:
        raise InvalidInput(f"{field} is required.", field=field)
    if not isinstance(value, str):
        raise InvalidInput(f"{field} must be text.", field=field)
    if not value.strip() or len(value) > MAX_NAME:
        raise InvalidInput(f"{field} must have 1 to {MAX_NAME} characters.", field=field)
    if not value.isprintable():
        raise InvalidInput(f"{field} must not contain control characters.", field=field)
    return value


@overload
def boolean(data: Mapping[str, object], field: str, *, default: bool, inside: str = "") -> bool: ...
@overload
def boolean(data: Mapping[str, object], field: str, *, default: None, inside: str = "") -> bool | None: ...
def boolean(data: Mapping[str, object], field: str, *, default: bool | None, inside: str = "") -> bool | None:
    """Return true or false; null and a missing field are the default. `inside` names the object it is a field of."""
    value = data.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        label = _label(field, inside)
        raise InvalidInput(f"{label} must be true or false.", field=label)
    return value


def _label(field: str, inside: str) -> str:
    return f"{inside}.{field}" if inside else field


def mask_host(data: Mapping[str, object], field: str, *, inside: str) -> str:
    """Return the Host that a sandbox's servers see: a name and maybe a port, `${PORT}` in it; "" leaves it as it is."""
    value, label = data.get(field), _label(field, inside)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{label} must be text.", field=label)
    match = _HOST.fullmatch(value.replace("${PORT}", "1"))
    if len(value) > MAX_HOST or not match or not 1 <= int(match["port"] or 1) <= _LAST_PORT:
        raise InvalidInput(f"{label} must be an ASCII host name, with a port or without.", field=label)
    return value


def ports(data: Mapping[str, object], field: str, *, inside: str) -> tuple[int, ...]:
    """Return the ports of a list, each once. The agent's own port is not among them."""
    value, label = data.get(field), _label(field, inside)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_PORTS:
        raise InvalidInput(f"{label} must be a list of at most {MAX_PORTS} ports.", field=label)
    for port in value:
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _LAST_PORT:
            raise InvalidInput(f"{label} must hold whole numbers from 1 to {_LAST_PORT}.", field=label)
        if port == AGENT_PORT:
            raise InvalidInput(f"{label} must not hold {AGENT_PORT}, the port of the agent.", field=label)
    return tuple(dict.fromkeys(value))


def optional_object(data: Mapping[str, object], field: str) -> Mapping[str, object]:
    """Return an object; null and a missing field are an empty one."""
    value = data.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{field} must be an object.", field=field)
    return value


def metadata(data: Mapping[str, object], field: str = "metadata") -> dict[str, str]:
    """Return the flat text map that labels a sandbox."""

    def check(key: str, value: str) -> None:
        if not 1 <= len(key) <= MAX_METADATA_KEY:
            raise InvalidInput(f"A key of {field} must have 1 to {MAX_METADATA_KEY} characters.", field=field)
        if len(value) > MAX_METADATA_VALUE:
            raise InvalidInput(f"{field}.{key} is longer than {MAX_METADATA_VALUE} characters.", field=f"{field}.{key}")

    return _text_map(data, field, MAX_METADATA_PAIRS, MAX_METADATA_TOTAL, check)


def environment(data: Mapping[str, object], field: str = "envVars") -> dict[str, str]:
    """Return the environment variables of every process in the sandbox. Errors never repeat a value."""

    def check(key: str, _value: str) -> None:
        if not _ENV_NAME.fullmatch(key):
            raise InvalidInput(
                f"A name in {field} must be 1 to 256 of A-Z, a-z, 0-9, _, . and -, and not begin with a digit.",
                field=field,
            )

    return _text_map(data, field, MAX_ENV_PAIRS, MAX_ENV_TOTAL, check)


def _text_map(
    data: Mapping[str, object],
    field: str,
    max_pairs: int,
    max_total: int,
    check: Callable[[str, str], None],
) -> dict[str, str]:
    pairs = optional_object(data, field)
    if len(pairs) > max_pairs:
        raise InvalidInput(f"{field} must not have more than {max_pairs} entries.", field=field, maximum=max_pairs)
    checked: dict[str, str] = {}
    total = 0
    for key, value in pairs.items():
        if not isinstance(value, str):
            label = f"{field}.{key[:MAX_METADATA_KEY]}"
            raise InvalidInput(f"{label} must be text.", field=label)
        check(key, value)
        total += len(key.encode()) + len(value.encode()) + 2
        checked[key] = value
    if total > max_total:
        raise InvalidInput(f"{field} is larger than {max_total} bytes.", field=field, maximum=max_total)
    return checked


def refuse_unless_empty(data: Mapping[str, object], field: str, kind: type | tuple[type, ...]) -> None:
    """Let a field of a later version pass while it asks for nothing; raise NotYetAvailable otherwise."""
    value = data.get(field)
    if value is None:
        return
    if isinstance(value, bool) and bool not in (kind if isinstance(kind, tuple) else (kind,)):
        raise InvalidInput(f"{field} has the wrong type.", field=field)
    if not isinstance(value, kind):
        raise InvalidInput(f"{field} has the wrong type.", field=field)
    if value:
        raise NotYetAvailable(f"This version does not offer {field} yet.", field=field)
