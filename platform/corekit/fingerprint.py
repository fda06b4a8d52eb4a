"""What the audit keeps of a call's arguments: a keyed hash that proves them, and their shape. Never their text."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence

_MAX_NAMES = 50
_MAX_NAME_LENGTH = 80
_MAX_DEPTH = 3


def arguments_hash(key: bytes, arguments: Mapping[str, object]) -> str:
    """Return the HMAC-SHA256 (64 hex) of the arguments as canonical JSON: sorted names, no blanks, UTF-8."""
    return fingerprint(key, arguments)[0]


def fingerprint(key: bytes, arguments: Mapping[str, object]) -> tuple[str, int]:
    """Return the arguments' hash, and the size in bytes of the canonical JSON that it is of."""
    text = canonical(arguments)
    return hmac.digest(key, text, "sha256").hex(), len(text)


def canonical(arguments: Mapping[str, object]) -> bytes:
    """Return the arguments as canonical JSON: sorted names, no blanks, UTF-8."""
    return _CANONICAL.encode(arguments).encode("utf-8", "surrogatepass")


def arguments_shape(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return name → kind and size, such as `{"path": "text(24)", "data": "bytes(1048576)"}`; at most 50 names."""
    return _shape_of_mapping(arguments, 0)


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"sha256": hashlib.sha256(value).hexdigest(), "size": len(value)}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _shape_of_mapping(value: Mapping[str, object], depth: int) -> dict[str, object]:
    shape: dict[str, object] = {}
    for number, (name, inner) in enumerate(value.items()):
        if number == _MAX_NAMES:
            shape["…"] = f"{len(value) - _MAX_NAMES} more"
            break
        shape[str(name)[:_MAX_NAME_LENGTH]] = _shape(inner, depth + 1)
    return shape


def _shape(value: object, depth: int) -> object:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return f"text({len(value)})"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"bytes({len(value)})"
    if isinstance(value, Mapping):
        return _shape_of_mapping(value, depth) if depth < _MAX_DEPTH else f"object({len(value)})"
    if isinstance(value, Sequence | set | frozenset):
        return f"list({len(value)})"
    return type(value).__name__
