"""Envelopes: a value under a key of its own, that under its tenant's key, and that under the master key.

Each is AES-256-GCM with a random nonce, bound to whose and what it is: moved to another row, it does not open.
"""

from __future__ import annotations

import os
from datetime import UTC
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from datetime import datetime

    from tenants.vaults.contract import Ref

KEY_BYTES = 32
_NONCE_BYTES = 12


class BrokenEnvelopeError(Exception):
    """What is sealed was changed, belongs elsewhere, or is under another key."""


def new_key() -> bytes:
    """Return a new random key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, data: bytes, bound_to: bytes) -> bytes:
    """Seal data under a key, for one place only."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, bound_to)


def unseal(key: bytes, sealed: bytes | memoryview, bound_to: bytes) -> bytes:
    """Return what was sealed. Raises BrokenEnvelopeError."""
    # Some databases hand out views of memory.
    sealed = bytes(sealed)
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError) as error:
        raise BrokenEnvelopeError("this is not what was sealed here") from error


def place_of_value(ref: Ref, version: str, created_at: datetime) -> bytes:
    """Return what a value is bound to."""
    at = created_at.astimezone(UTC).isoformat(timespec="microseconds")
    return "|".join(("v1", ref.tenant_id, ref.name, ref.secret_id, version, at)).encode()


def place_of_data_key(ref: Ref, version: str) -> bytes:
    """Return what the key of a value is bound to."""
    return "|".join(("v1", "data-key", ref.tenant_id, ref.name, ref.secret_id, version)).encode()


def place_of_tenant_key(tenant_id: str, master_id: str) -> bytes:
    """Return what a tenant's key is bound to."""
    return "|".join(("v1", "tenant-key", tenant_id, master_id)).encode()


def place_of_sentinel(master_id: str) -> bytes:
    """Return what the text is bound to by which a master key is known again."""
    return "|".join(("v1", "sentinel", master_id)).encode()
