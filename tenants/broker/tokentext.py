"""The text of a scoped token: made, taken apart, and hashed. It is shown once and stored nowhere.

`sbx_`, a letter (`l` for live, `d` where debugging is on), the public id, `_`, 43 random characters (256 bits) and six
of a checksum, by which scanners tell a token from what only looks like one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass

PREFIX = "sbx_"
LIVE, DEBUG = "l", "d"
SECRET_LENGTH, CHECKSUM_LENGTH = 43, 6
LENGTH = len(PREFIX) + 1 + 16 + 1 + SECRET_LENGTH + CHECKSUM_LENGTH
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TEXT = re.compile(
    rf"(?P<body>{PREFIX}[{LIVE}{DEBUG}](?P<id>[0-9a-f]{{16}})_[0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A well-formed token: its public id, and the hash under which its row is stored."""

    id: str
    hash: str


def new_text(token_id: str, *, debug: bool = False) -> str:
    """Return a new text for a token of this id."""
    return _text(token_id, "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_LENGTH)), debug=debug)


def repeatable_text(key: bytes, token_id: str, *, debug: bool = False) -> str:
    """Return the one text that a key and an id give: for a create that may be asked for again."""
    number = int.from_bytes(hmac.digest(key, token_id.encode(), "sha512"), "big")
    return _text(token_id, _digits(number, SECRET_LENGTH), debug=debug)


def parse(text: object) -> Parsed | None:
    """Return what a text says when it has the form of a token and its checksum fits, else None."""
    if not isinstance(text, str) or len(text) != LENGTH:
        return None
    match = _TEXT.fullmatch(text)
    if match is None or match["checksum"] != _checksum(match["body"]):
        return None
    return Parsed(match["id"], text_hash(text))


def text_hash(text: str) -> str:
    """Return the SHA-256 under which a token is stored: 256 random bits need no slower one."""
    return hashlib.sha256(text.encode()).hexdigest()


def _text(token_id: str, secret: str, *, debug: bool) -> str:
    body = f"{PREFIX}{DEBUG if debug else LIVE}{token_id}_{secret}"
    return body + _checksum(body)


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def _digits(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[rest])
    return "".join(digits)
