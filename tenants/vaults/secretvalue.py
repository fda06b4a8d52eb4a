"""A secret's value on its way through our own code: hidden wherever somebody would write it down."""

from __future__ import annotations

import hmac
import weakref
from typing import NoReturn

from corekit import redaction


class SecretValue:
    """Bytes that show as `[redacted]`. Only `reveal` gives them away.

    While one of them lives, log lines that hold its text are redacted (`corekit.redaction`).
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: bytes) -> None:
        self._value = value
        weakref.finalize(self, redaction.unhide, redaction.hide(value)).atexit = False

    def reveal(self) -> bytes:
        """Return the value itself: for the one place that sends it to where it belongs."""
        return self._value

    def __repr__(self) -> str:
        return f"SecretValue({redaction.HIDDEN})"

    def __str__(self) -> str:
        return redaction.HIDDEN

    def __format__(self, spec: str) -> str:
        return redaction.HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret's value is not written anywhere.")
