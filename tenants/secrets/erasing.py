"""What happens to the secrets of a tenant that is erased.

The embedded vault forgets the tenant's key, and with it all that was sealed under it, in every backup too that holds
no copy of that key. Other vaults are asked to erase their entries by who begins it, who alone may reach them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenants.secretmodels import Secret, TenantKey
from tenants.secrets import actions
from tenants.vaults.embedded import NAME as EMBEDDED

if TYPE_CHECKING:
    from uuid import UUID

    from django.db.models import QuerySet


def forget_key(tenant_id: UUID) -> int:
    """Erase a tenant's key; return how many there were. From here on nobody reads any of its embedded values."""
    forgotten, _ = TenantKey.everywhere().filter(tenant_id=tenant_id).delete()
    return forgotten


def kept_elsewhere(tenant_id: UUID) -> QuerySet[Secret]:
    """Return a tenant's secrets, deleted ones too, whose values other vaults than the embedded one still keep."""
    return Secret.everywhere().filter(tenant_id=tenant_id, purged_at=None, entry="").exclude(vault=EMBEDDED)


def erase_elsewhere(tenant_id: UUID) -> int:
    """Let other vaults erase what they keep of a tenant; return how many secrets are left because one is away."""
    return actions.erase_deleted(kept_elsewhere(tenant_id))
