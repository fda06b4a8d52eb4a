"""Identifiers: how they look, how they are made, how they are recognised."""

from __future__ import annotations

import os
import re
import secrets
import string
import time

_ALPHABET = string.digits + string.ascii_lowercase
_SANDBOX_ID = re.compile(r"[a-z0-9]{1,64}")
_KEY_ID = re.compile(r"[0-9a-f]{16}")
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{8,64}")


def new_sandbox_id() -> str:
    """Return a new sandbox id: "i" and 20 characters of a-z0-9 (103 bits), fit for a host name's label."""
    return "i" + "".join(secrets.choice(_ALPHABET) for _ in range(20))


def is_sandbox_id(text: object) -> bool:
    """Say whether the text could be a sandbox id. Nothing else may be used in a path or a host name."""
    return isinstance(text, str) and _SANDBOX_ID.fullmatch(text) is not None


def strip_client_suffix(text: str) -> str:
    """Turn the old form `<sandbox id>-<client id>` into the sandbox id; leave everything else as it is."""
    head, dash, tail = text.partition("-")
    return head if dash and _SANDBOX_ID.fullmatch(head) and _SANDBOX_ID.fullmatch(tail) else text


def new_event_id() -> str:
    """Return 32 hex characters in UUIDv7 layout, so that ids sort by the millisecond they were made in."""
    at = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10), "big")
    value = (at & ((1 << 48) - 1)) << 80 | 0x7 << 76 | (chance >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | chance & ((1 << 62) - 1)
    return f"{value:032x}"


def is_event_id(text: object) -> bool:
    """Say whether the text has the form of an event id."""
    return isinstance(text, str) and _EVENT_ID.fullmatch(text) is not None


def new_request_id() -> str:
    """Return the id that one request carries through every process and log line."""
    return new_event_id()


def is_request_id(text: object) -> bool:
    """Say whether a request id from outside is harmless in headers and log lines."""
    return isinstance(text, str) and _REQUEST_ID.fullmatch(text) is not None


def new_key_id() -> str:
    """Return a new API key id: 16 random hex characters, not derived from the key and not secret."""
    return secrets.token_hex(8)


def is_key_id(text: object) -> bool:
    """Say whether the text has the form of an API key id."""
    return isinstance(text, str) and _KEY_ID.fullmatch(text) is not None
