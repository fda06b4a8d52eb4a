"""Encrypted copies of arguments, for tenants that keep them: closed by the gateway, opened with the break-glass scope.

The gateway and the worker can close and keep copies but open none: the private key is derived from the seed, which
only web reads. Opening one is an event that is written before anything is shown.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings

from audit.models import ArgumentCopy, LedgerPolicy
from corekit import clock, sealedbox, tokens
from corekit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from audit.models import Event
_KEY_ID = "1"


def public_key(tenant_id: str) -> str:
    """Return the key, in hex, that closes copies of a tenant's arguments; "" for a tenant that keeps none."""
    if not LedgerPolicy.objects.filter(pk=tenant_id, keep_arguments=True).exists():
        return ""
    return sealedbox.public_key(_private_key(tenant_id)).hex()


def keep(events: Iterable[tuple[Mapping[str, Any], Event]]) -> None:
    """Keep the copies that came with new events, of tenants that still want them."""
    found = [
        (row.pk, row.tenant_id, event["args_copy"])
        for event, row in events
        if event.get("args_copy") and row.tenant_id is not None
    ]
    if not found:
        return
    policies = LedgerPolicy.objects.filter(keep_arguments=True).in_bulk({tenant_id for _, tenant_id, _ in found})
    now = clock.now()
    ArgumentCopy.objects.bulk_create(
        ArgumentCopy(
            event_id=event_id,
            tenant_id=tenant_id,
            key_id=_KEY_ID,
            ciphertext=box,
            expires_at=now + timedelta(days=policy.arguments_days),
        )
        for event_id, tenant_id, copy in found
        if (policy := policies.get(tenant_id)) is not None and (box := _box(copy)) is not None
    )


def exists_for(event: Event) -> bool:
    """Say whether there is a copy of an event's arguments."""
    return ArgumentCopy.objects.filter(pk=event.pk, expires_at__gt=clock.now()).exists()


def opened(event: Event) -> dict[str, Any]:
    """Return the arguments of an event. Raises NotFound without a copy, or when it was changed.

    Whoever calls this has written down who asked and why.
    """
    copy = ArgumentCopy.objects.filter(pk=event.pk, expires_at__gt=clock.now()).first()
    if copy is None:
        raise NotFound("There is no copy of this event's arguments.")
    try:
        plain = sealedbox.unseal(_private_key(copy.tenant_id.hex), bytes(copy.ciphertext))
        found: dict[str, Any] = json.loads(plain)
    except (sealedbox.BoxError, ValueError) as error:
        raise NotFound("The copy of this event's arguments can't be opened: it was changed.") from error
    return found


def erase_expired() -> int:
    """Erase the copies whose time is over; return how many."""
    return ArgumentCopy.objects.filter(expires_at__lte=clock.now()).delete()[0]


def erase_tenant(tenant_id: UUID) -> int:
    """Erase all copies of a tenant; return how many."""
    return ArgumentCopy.objects.filter(tenant_id=tenant_id).delete()[0]


def _private_key(tenant_id: str) -> bytes:
    return tokens.arguments_key(settings.GATEHOUSE.seed(), UUID(tenant_id).hex)


def _box(text: object) -> bytes | None:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        return None
