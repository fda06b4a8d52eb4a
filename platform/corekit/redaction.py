"""Redaction: secrets do not reach a log line, whatever a caller passes in."""

from __future__ import annotations

import base64
import re
import threading
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from urllib.parse import quote

HIDDEN = "[redacted]"
_MAX_DEPTH = 12
_SENSITIVE = re.compile(r"password|passwd|secret|token|key|authorization|cookie|credential", re.IGNORECASE)
# Names that contain a sensitive word but are public by design; without them a log could not say who acted.
_PUBLIC = frozenset({"key_id", "access_key_id", "public_key", "secret_name", "secret_id", "token_id", "max_tokens"})
_LISTS = (Sequence, set, frozenset)
_BYTES = (bytes, bytearray, memoryview)
_SECRET_TEXT = re.compile(
    r"\be2b_[0-9a-f]{40}\b|\bgh_[0-9a-f]{16}_[0-9a-f]{64}\b|sbx_[a-z][0-9a-f]{16}_[0-9A-Za-z]{49}"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)

# A shorter secret turns up in any line by chance.
_MIN_LIVE = 6
_live: Counter[str] = Counter()
# What forgets a secret runs wherever the interpreter frees memory, also while this very thread holds the lock.
_live_lock = threading.RLock()


def hide(value: bytes) -> tuple[str, ...]:
    """Let no line show a secret that is in use, nor its percent-encoded or base64 form, until `unhide` is called."""
    shapes = _shapes(value) if len(value) >= _MIN_LIVE else ()
    with _live_lock:
        _live.update(shapes)
    return shapes


def unhide(shapes: tuple[str, ...]) -> None:
    """Forget what `hide` returned."""
    with _live_lock:
        _live.subtract(shapes)
        for shape in shapes:
            if _live[shape] <= 0:
                del _live[shape]


def _shapes(value: bytes) -> tuple[str, ...]:
    # Of base64 only the characters that depend on nothing but the value: what stands around it is not known.
    aligned = (
        base64.b64encode(bytes(before) + value)[-(-before * 8 // 6) : (before + len(value)) * 8 // 6].decode()
        for before in range(3)
    )
    return tuple({value.decode(errors="replace"), quote(value, safe=""), *aligned})


def _without_live(text: str) -> str:
    if not _live or len(text) < _MIN_LIVE:
        return text
    found = [shape for shape in tuple(_live) if shape in text]
    for shape in sorted(found, key=len, reverse=True):
        text = text.replace(shape, HIDDEN)
    return text


def is_sensitive(name: object) -> bool:
    """Say whether values under this name must not be shown."""
    return isinstance(name, str) and name.lower() not in _PUBLIC and _SENSITIVE.search(name) is not None


def redact(value: object, depth: int = 0) -> object:
    """Return a copy in which every secret is replaced: by the name it stands under, or by its own shape."""
    if depth > _MAX_DEPTH:
        return HIDDEN
    if isinstance(value, str):
        return _SECRET_TEXT.sub(HIDDEN, _without_live(value))
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
