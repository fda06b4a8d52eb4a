"""Secrets in the database: AES-256-GCM under a key that is derived for one purpose and lies outside of it."""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


def encrypt(key: str, purpose: str, secret: str) -> str:
    """Return a secret as it is stored."""
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + _cipher(key, purpose).encrypt(nonce, secret.encode(), None)).decode()


def decrypt(key: str, purpose: str, stored: str) -> str:
    """Return a stored secret. Raises cryptography's InvalidTag when it was stored under another key or purpose."""
    data = base64.b64decode(stored)
    return _cipher(key, purpose).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], None).decode()


def _cipher(key: str, purpose: str) -> AESGCM:
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode())
    return AESGCM(derive.derive(key.encode()))
