"""The statements that use a token and settle what it was used for, as SQL. Only `redeeming` calls them.

To use a token is one conditional statement: of any number that race for its last use, exactly one gets a row back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connection

from corekit import clock, ids
from tenants import statements
from tenants.models import ApiKey, Tenant
from tenants.states import TenantState
from tenants.tokenmodels import ScopedToken, TokenUse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from tenants.tokenmodels import TokenEnd

MINUTE_US = 60_000_000
AMOUNTS = ("bytes_out", "tokens", "microusd")

_TOKEN, _USE = ScopedToken._meta.db_table, TokenUse._meta.db_table
_TENANT, _KEY = Tenant._meta.db_table, ApiKey._meta.db_table
_FIND = (
    f"SELECT {_TOKEN}.*, {_TENANT}.state AS tenant_state FROM {_TOKEN} "  # noqa: S608
    f"JOIN {_TENANT} ON {_TENANT}.id = {_TOKEN}.tenant_id WHERE {_TOKEN}.id = %s"
)
_COLUMNS = {field.column: field for field in ScopedToken._meta.concrete_fields}
# Of a budget at least what is known of a use must be left; what is only estimated may go beyond it, once.
_LEFT = " AND ".join(f"(max_{name} IS NULL OR spent_{name} + reserved_{name} + %s <= max_{name})" for name in AMOUNTS)
_RESERVED = ", ".join(f"reserved_{name} = reserved_{name} + %s" for name in AMOUNTS)
_SETTLED = ", ".join(f"spent_{name} = spent_{name} + %s, reserved_{name} = reserved_{name} - %s" for name in AMOUNTS)
_TAKE = (
    f"UPDATE {_TOKEN} SET uses = uses + 1, last_used_at = %s, {_RESERVED}, "  # noqa: S608  (names of our own columns)
    "next_use_us = CASE WHEN requests_per_minute IS NULL THEN next_use_us "
    f"WHEN next_use_us > %s THEN next_use_us + {MINUTE_US} / requests_per_minute "
    f"ELSE %s + {MINUTE_US} / requests_per_minute END "
    "WHERE id = %s AND hash = %s AND sandbox_id = %s AND generation = %s AND run = %s AND ended_at IS NULL "
    "AND not_before <= %s AND expires_at > %s AND (max_uses IS NULL OR uses < max_uses) "
    f"AND (requests_per_minute IS NULL OR next_use_us <= %s - {MINUTE_US} / requests_per_minute) AND {_LEFT} "
    f"AND EXISTS (SELECT 1 FROM {_TENANT} WHERE {_TENANT}.id = {_TOKEN}.tenant_id AND {_TENANT}.state = %s) "
    # A token that its key issued while it was being revoked is not among those that ended with it.
    f"AND NOT EXISTS (SELECT 1 FROM {_KEY} WHERE {_KEY}.id = {_TOKEN}.created_by AND revoked_at IS NOT NULL) "
    "RETURNING uses"
)
_BEGIN_USE = (
    f"INSERT INTO {_USE} (id, token_id, at, method, path, {', '.join(AMOUNTS)}) "  # noqa: S608
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
_SETTLE_USE = f"DELETE FROM {_USE} WHERE id = %s RETURNING token_id, {', '.join(AMOUNTS)}"  # noqa: S608
_SETTLE = f"UPDATE {_TOKEN} SET {_SETTLED} WHERE id = %s"  # noqa: S608
# Two that end many at once lock them in one order.
_END = (
    f"UPDATE {_TOKEN} SET ended_at = %s, end_reason = %s, ended_by = %s WHERE id IN "  # noqa: S608
    f"(SELECT id FROM {_TOKEN} WHERE {{where}} AND ended_at IS NULL AND expires_at > %s ORDER BY id{{lock}}) "
    "RETURNING tenant_id, uses, max_uses"
)
_GIVE_BACK = f"UPDATE {_TOKEN} SET uses = uses - 1, {_SETTLED} WHERE id = %s"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Amounts:
    """Parts of a budget: bytes that leave the sandbox, a model's tokens, and millionths of a dollar."""

    bytes_out: int = 0
    tokens: int = 0
    microusd: int = 0

    def values(self) -> tuple[int, int, int]:
        """Return them in the order of the columns."""
        return self.bytes_out, self.tokens, self.microusd


def find(token_id: str) -> tuple[ScopedToken, str] | None:
    """Return a token with the state of its tenant, None when there is none of this id."""
    for token in ScopedToken.everywhere().raw(_FIND, [token_id]):
        return token, str(vars(token)["tenant_state"])
    return None


def take(token: ScopedToken, *, needed: Amounts, reserved: Amounts, now: datetime) -> bool:
    """Use a token once; say whether it counted (still)."""
    at, now_us = connection.ops.adapt_datetimefield_value(now), clock.to_ms(now) * 1000
    bound = [token.pk, token.hash, token.sandbox_id, token.generation, token.run]
    values = [at, *reserved.values(), now_us, now_us, *bound, at, at, now_us + MINUTE_US, *needed.values()]
    return statements.returned(_TAKE, [*values, TenantState.ACTIVE.value]) is not None


def begin_use(token: ScopedToken, *, method: str, path: str, reserved: Amounts, now: datetime) -> str:
    """Write down a use that was taken, in the same transaction; return its id."""
    use_id = ids.new_event_id()
    at = connection.ops.adapt_datetimefield_value(now)
    statements.run(_BEGIN_USE, [use_id, token.pk, at, method, path, *reserved.values()])
    return use_id


def settle(use_id: str, spent: Amounts | None) -> tuple[str, Amounts] | None:
    """End a use by what it has spent, or by all that it reserved; return the token's id and what was spent.

    Returns None when it has ended already. Must run in a transaction.
    """
    ended = _end_use(use_id)
    if ended is None:
        return None
    token_id, reserved = ended
    spent = reserved if spent is None else spent
    statements.run(_SETTLE, [*_paired(spent, reserved), token_id])
    return token_id, spent


def give_back(use_id: str) -> bool:
    """Undo a use of which nothing went out; say whether this call did. Must run in a transaction."""
    ended = _end_use(use_id)
    if ended is None:
        return False
    token_id, reserved = ended
    statements.run(_GIVE_BACK, [*_paired(Amounts(), reserved), token_id])
    return True


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of ending tokens: whose they were (None when there were none), how many, and how many had uses left."""

    tenant_id: UUID | None = None
    count: int = 0
    unused: int = 0


def end(where: Mapping[str, Any], reason: TokenEnd, by: str) -> Ended:
    """End the tokens of one tenant that have these values in their columns. Must run in a transaction.

    Those that are used up end too: a use that is undone afterwards does not bring them back.
    """
    now = connection.ops.adapt_datetimefield_value(clock.now())
    fields = {_COLUMNS[name]: value for name, value in where.items()}
    values = [one.get_db_prep_value(value, connection) for one, value in fields.items()]
    sql = _END.format(
        where=" AND ".join(f"{one.column} = %s" for one in fields),
        lock=" FOR UPDATE" if connection.features.has_select_for_update else "",
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [now, reason.value, by[:64], *values, now])
        rows = cursor.fetchall()
    if not rows:
        return Ended()
    owner: UUID = Tenant._meta.pk.to_python(rows[0][0])
    return Ended(owner, len(rows), sum(most is None or uses < most for _, uses, most in rows))


def _paired(spent: Amounts, reserved: Amounts) -> list[int]:
    return [amount for pair in zip(spent.values(), reserved.values(), strict=True) for amount in pair]


def _end_use(use_id: str) -> tuple[str, Amounts] | None:
    row = statements.returned(_SETTLE_USE, [use_id])
    return None if row is None else (str(row[0]), Amounts(*row[1:]))
