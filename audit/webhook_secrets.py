"""The secrets of webhooks at rest, under a key of this installation, outside the database."""

from __future__ import annotations

from django.conf import settings

from corekit import atrest

_PURPOSE = "gatehouse webhook secrets v1"


def encrypt(secret: str) -> str:
    """Return a secret as it is stored."""
    # Web makes the secrets and the worker signs with them: Django's key is the one that both may read.
    return atrest.encrypt(settings.SECRET_KEY, _PURPOSE, secret)


def decrypt(stored: str) -> str:
    """Return a stored secret. Raises cryptography's InvalidTag when this installation did not store it."""
    return atrest.decrypt(settings.SECRET_KEY, _PURPOSE, stored)
