"""From the text of an API key to an actor."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from django.conf import settings
from django.db import DatabaseError, models, transaction

from corekit import clock, tokens
from corekit.actor import Actor
from corekit.errors import Forbidden, Unauthorized
from tenants.models import ApiKey
from tenants.states import TenantState

if TYPE_CHECKING:
    from datetime import datetime

logger = structlog.get_logger("gatehouse.tenants")

PREFIX_LENGTH = 8
_KEY = re.compile(r"e2b_[0-9a-f]{40}")
_LAST_USED_STEP = timedelta(minutes=1)


def new_key_text() -> str:
    """Return a new API key in the form that the E2B clients accept: `e2b_` and 40 hex characters (160 bits)."""
    return f"e2b_{secrets.token_hex(20)}"


def key_hash(plaintext: str) -> str:
    """Return the keyed hash under which a key is stored. Without the seed, a stolen database opens nothing."""
    pepper = tokens.pepper(settings.GATEHOUSE.seed())
    return hmac.new(pepper, plaintext.encode(), hashlib.sha256).hexdigest()


def authenticate(plaintext: str, *, origin: str | None, request_id: str | None) -> Actor:
    """Return the actor behind a key.

    Raises Unauthorized for a key that is unknown, expired or revoked, and Forbidden when its tenant is suspended.
    """
    if not _KEY.fullmatch(plaintext):
        raise Unauthorized
    try:
        key = ApiKey.everywhere().select_related("tenant").get(hash=key_hash(plaintext))
    except ApiKey.DoesNotExist:
        raise Unauthorized from None
    now = clock.now()
    if key.revoked_at is not None:
        raise Unauthorized("This API key was revoked.")
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthorized("This API key has expired.")
    if key.tenant.state != TenantState.ACTIVE:
        raise Forbidden("This tenant is suspended.")
    _note_use(key, now)
    return Actor(
        kind="api_key",
        id=key.id,
        name=key.name,
        tenant_id=key.tenant_id.hex,
        scopes=frozenset(key.scopes),
        origin=origin,
        request_id=request_id,
        auth="api_key",
        token_id=key.id,
    )


def _note_use(key: ApiKey, now: datetime) -> None:
    """Remember when a key was last used, at most once a minute: most calls write nothing."""
    threshold = now - _LAST_USED_STEP
    if key.last_used_at is not None and key.last_used_at > threshold:
        return
    unnoted = models.Q(last_used_at__isnull=True) | models.Q(last_used_at__lte=threshold)
    try:
        with transaction.atomic():
            ApiKey.everywhere().filter(unnoted, id=key.id).update(last_used_at=now)
    except DatabaseError as error:
        # A busy database must not refuse a good key.
        logger.warning("key_use_not_noted", key_id=key.id, reason=str(error))
