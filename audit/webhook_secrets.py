"""The secrets of webhooks at rest: AES-256-GCM under a key of this installation, outside the database."""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

_NONCE_BYTES = 12


def encrypt(secret: str) -> str:
    """Return a secret as it is stored."""
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + _cipher().encrypt(nonce, secret.encode(), None)).decode()


def decrypt(stored: str) -> str:
    """Return a stored secret. Raises cryptography's InvalidTag when this installation did not store it."""
    data = base64.b64decode(stored)
    return _cipher().decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], None).decode()


def _cipher() -> AESGCM:
    # Web makes the secrets and the worker signs with them: Django's key is the one that both may read.
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"gatehouse webhook secrets v1")
    return AESGCM(derive.derive(settings.SECRET_KEY.encode()))
