"""What web and worker may do in PostgreSQL: two roles that own nothing.

The tables belong to whoever made them, and triggers that refuse changes can be dropped by an owner only. So the
services act as `gatehouse_web` and `gatehouse_worker`: with one login for all they take the role when they connect,
with logins of their own those are members of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit import appendonly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

SERVICES = ("web", "worker")
_CHANGES = "INSERT, UPDATE, DELETE"


def role_of(service: str) -> str:
    """Return the role of a service; "" for everything else, which acts as the owner."""
    return f"gatehouse_{service}" if service in SERVICES else ""


def grant(connection: BaseDatabaseWrapper) -> None:
    """Create the roles that are missing and give each exactly its rights. Needs the owner, with CREATEROLE."""
    with connection.cursor() as cursor:
        for statement in _statements(connection.introspection.table_names(cursor)):
            cursor.execute(statement)


def _statements(tables: list[str]) -> Iterator[str]:
    for service in SERVICES:
        role = role_of(service)
        # Two installations of one cluster may come here at the same time.
        yield (
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;"
            " END $$"
        )
        yield f"GRANT {role} TO CURRENT_USER"
        yield f"GRANT USAGE ON SCHEMA public TO {role}"
        yield f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}"
        for table in tables:
            yield f'REVOKE ALL ON "{table}" FROM {role}'
            yield f'GRANT SELECT{_more(service, table)} ON "{table}" TO {role}'


def _more(service: str, table: str) -> str:
    """Return what a service may do with a table beside reading it."""
    if table == "django_migrations":
        return ""
    if table in appendonly.ADDED_BY:
        may = ", INSERT" if service in appendonly.ADDED_BY[table] else ""
        # A trigger lets only those go that a signed record names.
        return f"{may}, DELETE" if (service, table) == ("worker", appendonly.DELETABLE_WHEN_PRUNED) else may
    if service == "web" and table in appendonly.WORKER_ONLY:
        return ""
    if service == "web" and table == appendonly.WAITING:
        return ", INSERT"
    return f", {_CHANGES}"
