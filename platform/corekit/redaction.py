"""Redaction: secrets do not reach a log line, whatever a caller passes in."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence

HIDDEN = "[redacted]"
_MAX_DEPTH = 12
_SENSITIVE = re.compile(r"password|passwd|secret|token|key|authorization|cookie|credential", re.IGNORECASE)
# Names that contain a sensitive word but are public by design; without them a log could not say who acted.
_PUBLIC = frozenset({"key_id", "access_key_id", "public_key"})
_LISTS = (Sequence, set, frozenset)
_BYTES = (bytes, bytearray, memoryview)
_SECRET_TEXT = re.compile(r"\be2b_[0-9a-f]{40}\b|\bgh_[0-9a-f]{16}_[0-9a-f]{64}\b|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")


def is_sensitive(name: object) -> bool:
    """Say whether values under this name must not be shown."""
    return isinstance(name, str) and name.lower() not in _PUBLIC and _SENSITIVE.search(name) is not None


def redact(value: object, depth: int = 0) -> object:
    """Return a copy in which every secret is replaced: by the name it stands under, or by its own shape."""
    if depth > _MAX_DEPTH:
        return HIDDEN
    if isinstance(value, str):
        return _SECRET_TEXT.sub(HIDDEN, value)
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if is_sensitive(name) and inner is not None else redact(inner, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, _LISTS) and not isinstance(value, _BYTES):
        return [redact(inner, depth + 1) for inner in value]
    return value


def redact_event(
    logger: object, method_name: str, event_dict: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Redact one log event: the structlog processor form of `redact`."""
    for name, value in event_dict.items():
        hidden = is_sensitive(name) and value is not None
        event_dict[name] = HIDDEN if hidden else redact(value)
    return event_dict
