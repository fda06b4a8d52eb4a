"""The heads of requests and answers: what of a sandbox's goes to a service, and what of a service's comes back."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from corekit.needles import Needles
from tenants.broker.catalogue import may_pass
from tenants.broker.problems import SecretUnusable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenants.broker.catalogue import Slot

    Fields = list[tuple[bytes, bytes]]

MAX_SECRET = 8192
"""No server takes a longer header."""
_TOKEN_SLOTS = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
_TOKEN = "sbx_"  # noqa: S105
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection"),
    }
)
# What makes a client keep, send or trust something, or go somewhere.
_NOT_BACK = frozenset(
    {
        *("alt-svc", "authentication-info", "cache-control", "clear-site-data", "content-encoding", "link", "location"),
        *("nel", "public-key-pins", "refresh", "report-to", "reporting-endpoints", "server", "set-cookie"),
        *("set-cookie2", "strict-transport-security", "via", "www-authenticate", "x-accel-buffering", "x-powered-by"),
    }
)
_NOT_BACK_PREFIXES = ("proxy-", "x-accel-", "gatehouse-")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_UNSENDABLE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_ANSWER_FIELDS = 200


def tokens_in(fields: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return the tokens in every slot that a vendor's client may use, each once; texts of another form are none."""
    found = []
    for name, value in fields:
        text = value.strip().decode("latin-1")
        if name in _TOKEN_SLOTS:
            found.append(text)
        elif name == b"authorization":
            scheme, _, rest = text.partition(" ")
            if scheme.lower() == "basic":
                found += _basic(rest.strip())
            else:
                found.append(rest.strip())
    return list(dict.fromkeys(text for text in found if text.startswith(_TOKEN)))


def _basic(text: str) -> tuple[str, ...]:
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return ()
    return user, password


def passed_on(fields: Iterable[tuple[bytes, bytes]], allowed: frozenset[str]) -> list[tuple[str, str]]:
    """Return the headers that the service may see, in the order in which they came."""
    plain = [(name.decode("latin-1").lower(), value) for name, value in fields]
    dropped = {"content-length"} | _named_by_connection(plain)
    kept = []
    for name, value in plain:
        if name in allowed and may_pass(name) and name not in dropped and not _UNSENDABLE.search(value):
            try:
                kept.append((name, value.decode()))
            except UnicodeDecodeError:
                continue
    return kept


def _named_by_connection(fields: Iterable[tuple[str, bytes]]) -> set[str]:
    named = [value.decode("latin-1").lower().split(",") for name, value in fields if name == "connection"]
    return {name.strip() for names in named for name in names}


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A secret in the form in which it travels, and what to look for in answers."""

    header: tuple[str, str] | None
    query: tuple[str, str] | None
    needles: Needles


def credential(slot: Slot, secret: bytes) -> Credential:
    """Put a secret into its slot. Raises SecretUnusable, without the value, when it can't travel there."""
    if not 0 < len(secret) <= MAX_SECRET or _UNSENDABLE.search(secret):
        raise SecretUnusable
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        raise SecretUnusable from None
    if text != text.strip():
        raise SecretUnusable("The secret begins or ends with a space.")
    if slot.kind == "query":
        return Credential(None, (slot.name, quote(text, safe="")), Needles([secret]))
    if slot.kind == "basic":
        return _as_basic(text)
    value = f"Bearer {text}" if slot.kind == "bearer" else text
    return Credential((slot.name, value), None, Needles([secret]))


def _as_basic(text: str) -> Credential:
    pair = text if ":" in text else f"{text}:"
    rendered = base64.b64encode(pair.encode())
    password = pair.partition(":")[2]
    # A server may know the password alone, or the pair as it came.
    needles = Needles([text.encode(), password.encode(), rendered])
    return Credential(("authorization", f"Basic {rendered.decode()}"), None, needles)


def come_back(fields: Iterable[tuple[bytes, bytes]], needles: Needles) -> tuple[Fields, bool]:
    """Return what of an answer's headers the sandbox sees, and whether the secret stood in any of them."""
    plain = [(name.decode("latin-1").lower(), value) for name, value in fields]
    dropped = _HOP_BY_HOP | _NOT_BACK | _named_by_connection(plain)
    kept, reflected = [], False
    for name, value in plain[:_MAX_ANSWER_FIELDS]:
        clean = needles.removed_from(value)
        in_name = needles.found_in(name.encode("latin-1"))
        reflected = reflected or clean != value or in_name
        back = name not in dropped and not name.startswith(_NOT_BACK_PREFIXES)
        if back and not in_name and _NAME.fullmatch(name) and not _UNSENDABLE.search(clean):
            kept.append((name.encode(), clean))
    return kept, reflected
