"""The statements that every create runs, as SQL: building them with the mapper costs more than running them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connection

from sandboxes.models import Sandbox, Template
from sandboxes.states import SandboxState
from tenants.models import Quota, Tenant

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

_SANDBOX, _TEMPLATE, _QUOTA = Sandbox._meta.db_table, Template._meta.db_table, Quota._meta.db_table

_TEMPLATES = (
    f"SELECT * FROM {_TEMPLATE} "  # noqa: S608  (names of our own tables)
    "WHERE (tenant_id IS NULL OR tenant_id = %s) AND (id = %s OR name = %s) LIMIT 3"
)
_LIFETIME = f"SELECT max_lifetime_s FROM {_QUOTA} WHERE tenant_id = %s"  # noqa: S608
_RUNNING = (
    f"UPDATE {_SANDBOX} SET state = %s, started_at = %s, end_at = %s "  # noqa: S608
    "WHERE id = %s AND state = %s"
)


def templates_named(tenant_id: UUID | None, name: str) -> list[Template]:
    """Return what a tenant may see under an id or a name: its own and the public ones."""
    return list(Template.objects.raw(_TEMPLATES, [_stored(tenant_id), name, name]))


def longest_lifetime_s(tenant_id: UUID) -> int | None:
    """Return the longest lifetime of a tenant's sandboxes, or None for an unknown tenant."""
    with connection.cursor() as cursor:
        cursor.execute(_LIFETIME, [_stored(tenant_id)])
        row = cursor.fetchone()
    return None if row is None else int(row[0])


def move_to_running(sandbox_id: str, started_at: datetime, end_at: datetime) -> bool:
    """Move a `starting` row to `running`; say whether it still was `starting`."""
    moment = connection.ops.adapt_datetimefield_value
    values = [SandboxState.RUNNING.value, moment(started_at), moment(end_at)]
    with connection.cursor() as cursor:
        cursor.execute(_RUNNING, [*values, sandbox_id, SandboxState.STARTING.value])
        moved: int = cursor.rowcount
    return moved == 1


def _stored(tenant_id: UUID | None) -> Any:
    """Return a tenant's id as this database stores it."""
    return Tenant._meta.pk.get_db_prep_value(tenant_id, connection)
