"""Which hosts a sandbox's scoped tokens are for: past the broker, their secrets' limits would be decoration."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.db.models import Q

from tenants.tokenmodels import BrokerService, ScopedToken

if TYPE_CHECKING:
    from uuid import UUID


def hosts_of(tenant_id: UUID, sandbox_id: str, generation: int) -> list[str]:
    """Return the hosts of the services that a sandbox got tokens for, sorted, whatever became of the tokens."""
    issued = ScopedToken.everywhere().filter(tenant_id=tenant_id, sandbox_id=sandbox_id, generation=generation)
    names = set(issued.order_by().values_list("service", flat=True).distinct())
    if not names:
        return []
    found = BrokerService.objects.filter(Q(tenant=None) | Q(tenant_id=tenant_id), name__in=names)
    return sorted({urlsplit(url).hostname or "" for url in found.values_list("base_url", flat=True)} - {""})


def is_first(token: ScopedToken) -> bool:
    """Say whether a token is its sandbox's first one for its service."""
    same = ScopedToken.everywhere().filter(sandbox_id=token.sandbox_id, generation=token.generation)
    return not same.filter(service=token.service).exclude(pk=token.pk).exists()
