"""Signs what the ledger states, as C2SP signed notes with Ed25519. Only the worker can read the key.

A note is text whose first line, the origin, is `gatehouse/<installation>/<chain>`; then an empty line, then
`— gatehouse/<installation> <base64 of key hash and signature>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from audit.models import SigningKey

if TYPE_CHECKING:
    from collections.abc import Sequence

PRODUCT = "gatehouse"
_ED25519 = b"\x01"
_DASH = "\N{EM DASH}"
_HASH_BYTES = 4


def can_sign() -> bool:
    """Say whether this process has the key."""
    try:
        _private_key()
    except ImproperlyConfigured:
        return False
    return True


def public_key() -> bytes:
    """Return the public half of the key. Raises ImproperlyConfigured when this process can't have it."""
    return _private_key().public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    """Return the id of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def installation_id() -> str:
    """Return the name of this ledger: the id of its first key; empty before anything was signed."""
    first = SigningKey.objects.order_by("created_at", "id").values_list("id", flat=True).first()
    return first or ""


def origin(chain: str) -> str:
    """Return the first line of what is stated about a chain."""
    return f"{PRODUCT}/{installation_id()}/{chain}"


def chain_of(origin: str) -> str:
    """Return the chain that an origin names; empty when it is none of ours."""
    parts = origin.split("/")
    return parts[2] if len(parts) == 3 and parts[0] == PRODUCT else ""


def register_key() -> str:
    """Make the key known to everybody and return its id. Call it before the first origin is written."""
    public = public_key()
    name = key_id(public)
    if not SigningKey.objects.filter(pk=name).exists():
        SigningKey(id=name, public_key=public.hex()).save()
    return name


def sign_note(text: str) -> tuple[str, str]:
    """Return a text with its signature, and the id of the key. Raises ImproperlyConfigured without the key."""
    name = register_key()
    signer = f"{PRODUCT}/{installation_id()}"
    blob = _key_hash(signer, public_key()) + _private_key().sign(text.encode())
    return f"{text}\n{_DASH} {signer} {base64.b64encode(blob).decode()}\n", name


def open_note(note: str, keys: Sequence[bytes]) -> str | None:
    """Return the text of a note; None unless one of the keys signed it."""
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        return None
    text += "\n"
    lines = signatures[:-1].split("\n")
    return text if any(_signed(line, text, key) for line in lines for key in keys) else None


def _signed(line: str, text: str, public: bytes) -> bool:
    dash, _, rest = line.partition(" ")
    signer, _, encoded = rest.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
        if dash != _DASH or blob[:_HASH_BYTES] != _key_hash(signer, public):
            return False
        Ed25519PublicKey.from_public_bytes(public).verify(blob[_HASH_BYTES:], text.encode())
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def _key_hash(signer: str, public: bytes) -> bytes:
    return hashlib.sha256(signer.encode() + b"\n" + _ED25519 + public).digest()[:_HASH_BYTES]


def _private_key() -> Ed25519PrivateKey:
    return _loaded(settings.GATEHOUSE.ledger_key())


@lru_cache(maxsize=4)
def _loaded(key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key)
