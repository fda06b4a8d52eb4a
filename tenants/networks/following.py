"""Let what runs follow a change of policies, also when the process that made the change dies right after it.

The change is written down in its own transaction, and forgotten once the upper layers have heard of it. What is left
over, the worker tells them; hearing of a change twice does no harm.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction

from corekit import clock
from tenants import hooks
from tenants.models import NetworkChange

if TYPE_CHECKING:
    from uuid import UUID

LEFT_AFTER = timedelta(seconds=5)
_AT_ONCE = 100


def note(tenant_id: UUID | None, policy: str | None) -> None:
    """Write a change down in the caller's transaction, and tell of it after the commit.

    With a tenant it is about its policy of that name, or about all that it has; without one it is the platform's, which
    concerns everybody.
    """
    named = policy if tenant_id is not None and policy else ""
    change = NetworkChange.objects.create(tenant_id=tenant_id, policy=named)
    transaction.on_commit(lambda: _tell(change), robust=True)


def follow_left() -> int:
    """Tell of changes that nobody told of in time; returns how many."""
    left = list(NetworkChange.objects.filter(created_at__lt=clock.now() - LEFT_AFTER).order_by("pk")[:_AT_ONCE])
    for change in left:
        _tell(change)
    return len(left)


def _tell(change: NetworkChange) -> None:
    tenant_id = change.tenant_id.hex if change.tenant_id is not None else None
    for hook in hooks.on_network_changed:
        hook(tenant_id, change.policy or None)
    NetworkChange.objects.filter(pk=change.pk).delete()
