"""The statements that move a quota's counters, as SQL: every create and every kill runs them.

Each is one conditional statement, so of two that race exactly one gets the last share. Only `quota` calls them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connection

from tenants import statements
from tenants.models import Quota, Reservation, ReservationState, Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

MINUTE_US = 60_000_000
# What a paused sandbox gives back for now; its memory and its disk stay where they are.
PARKED = ("sandboxes", "cpu_milli", "request_cpu_milli")
RESOURCES = ("sandboxes", "cpu_milli", "memory_mib", "disk_mib", "request_cpu_milli", "request_memory_mib")

_QUOTA, _RESERVATION = Quota._meta.db_table, Reservation._meta.db_table
_ADDED = ", ".join(f"used_{name} = used_{name} + %s" for name in RESOURCES)
_SUBTRACTED = ", ".join(f"used_{name} = used_{name} - %s" for name in RESOURCES)
# What isn't asked for can't be refused, even above a limit that was lowered later.
_ROOM = " AND ".join(f"(%s = 0 OR used_{name} + %s <= max_{name})" for name in RESOURCES)

_TAKE = f"UPDATE {_QUOTA} SET {_ADDED} WHERE tenant_id = %s AND {_ROOM}"  # noqa: S608  (names of our own columns)
_DELETE = f"DELETE FROM {_RESERVATION} WHERE sandbox_id = %s RETURNING tenant_id, {', '.join(RESOURCES)}"  # noqa: S608
_GIVE_BACK = f"UPDATE {_QUOTA} SET {_SUBTRACTED} WHERE tenant_id = %s"  # noqa: S608
_PARK = (
    f"UPDATE {_RESERVATION} SET state = %s, "  # noqa: S608
    f"{', '.join(f'parked_{name} = {name}, {name} = 0' for name in PARKED)} "
    f"WHERE sandbox_id = %s AND state <> %s RETURNING tenant_id, {', '.join(f'parked_{name}' for name in PARKED)}"
)
_UNPARK = (
    f"UPDATE {_RESERVATION} SET state = %s, "  # noqa: S608
    f"{', '.join(f'{name} = parked_{name}, parked_{name} = 0' for name in PARKED)} "
    f"WHERE sandbox_id = %s AND state = %s RETURNING tenant_id, {', '.join(PARKED)}"
)
_TURN = (
    f"UPDATE {_QUOTA} SET next_create_us = "  # noqa: S608
    f"CASE WHEN next_create_us > %s THEN next_create_us ELSE %s END + {MINUTE_US} / creates_per_minute "
    f"WHERE tenant_id = %s AND next_create_us <= %s - {MINUTE_US} / creates_per_minute"
)


def take(tenant_id: UUID, amounts: Mapping[str, int]) -> bool:
    """Add the amounts to the counters if every limit has room; say whether it had."""
    values = [amounts[name] for name in RESOURCES]
    twice = [value for value in values for _ in range(2)]
    return statements.run(_TAKE, [*values, _stored(tenant_id), *twice]) == 1


def give_back(sandbox_id: str) -> bool:
    """Delete a reservation and subtract it from the counters; say whether this call deleted it.

    Must run in a transaction.
    """
    row = statements.returned(_DELETE, [sandbox_id])
    if row is None:
        return False
    tenant_id, *amounts = row
    statements.run(_GIVE_BACK, [*amounts, tenant_id])
    return True


def park(sandbox_id: str) -> bool:
    """Give back for now what a paused sandbox does not use; say whether this call did. Must run in a transaction."""
    parked = ReservationState.PARKED.value
    row = statements.returned(_PARK, [parked, sandbox_id, parked])
    if row is None:
        return False
    tenant_id, *amounts = row
    statements.run(_GIVE_BACK, [*_all_of(amounts).values(), tenant_id])
    return True


def unpark(sandbox_id: str) -> tuple[UUID, dict[str, int], bool] | None:
    """Take again what `park` gave back; return the tenant, the amounts and whether there was room for them.

    Returns None when nothing is parked. Must run in a transaction, which the caller undoes when there was no room.
    """
    row = statements.returned(_UNPARK, [ReservationState.COMMITTED.value, sandbox_id, ReservationState.PARKED.value])
    if row is None:
        return None
    tenant_id, *amounts = row
    owner: UUID = Tenant._meta.pk.to_python(tenant_id)
    wanted = _all_of(amounts)
    return owner, wanted, take(owner, wanted)


def _all_of(parked: Sequence[int]) -> dict[str, int]:
    return dict.fromkeys(RESOURCES, 0) | dict(zip(PARKED, parked, strict=True))


def take_turn(tenant_id: UUID, now_us: int) -> bool:
    """Move the time at which the tenant's creates are used up by one create, if it is less than a minute ahead."""
    return statements.run(_TURN, [now_us, now_us, _stored(tenant_id), now_us + MINUTE_US]) == 1


def _stored(tenant_id: UUID) -> Any:
    """Return a tenant's id as this database stores it."""
    return Tenant._meta.pk.get_db_prep_value(tenant_id, connection)
