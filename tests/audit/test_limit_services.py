"""On PostgreSQL web and worker act in roles that can't undo what the ledger says."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from django.db import DatabaseError, connection, transaction

from audit import appendonly, databaseroles
from audit.recording import record
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenants.models import Tenant

pytestmark = [pytest.mark.django_db, pytest.mark.servers_only]


@contextlib.contextmanager
def acting_as(service: str) -> Iterator[None]:
    """Take the role of a service, as its connections do."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {databaseroles.role_of(service)}")
        try:
            yield
        finally:
            cursor.execute("RESET ROLE")


def refused(statement: str) -> bool:
    """Say whether the database refuses a statement for want of a right."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    except DatabaseError as error:
        return "permission denied" in str(error)
    return False


def happen(tenant: Tenant) -> str:
    """Record one event."""
    return record("tenant.created", actor=SYSTEM, object_type="tenant", object_id="t", tenant_id=tenant.pk).pk


def test_only_services_have_a_role() -> None:
    assert [databaseroles.role_of(name) for name in ("web", "worker", "manage")] == [
        "gatehouse_web",
        "gatehouse_worker",
        "",
    ]


@pytest.mark.parametrize("service", databaseroles.SERVICES)
def test_both_record(acme: Tenant, service: str) -> None:
    databaseroles.grant(connection)
    with acting_as(service):
        assert happen(acme)


@pytest.mark.parametrize("service", databaseroles.SERVICES)
@pytest.mark.parametrize("table", sorted(appendonly.ADDED_BY))
def test_neither_changes_the_ledger(acme: Tenant, service: str, table: str) -> None:
    databaseroles.grant(connection)
    with acting_as(service):
        assert refused(f"UPDATE {table} SET id = id")  # noqa: S608
        assert refused(f"TRUNCATE {table}")
        if (service, table) != ("worker", "audit_event"):
            assert refused(f"DELETE FROM {table}")  # noqa: S608


@pytest.mark.parametrize("table", sorted(name for name, may in appendonly.ADDED_BY.items() if "web" not in may))
def test_web_seals_and_signs_nothing(acme: Tenant, table: str) -> None:
    databaseroles.grant(connection)
    with acting_as("web"):
        assert refused(f"INSERT INTO {table} SELECT * FROM {table}")  # noqa: S608


@pytest.mark.parametrize("table", sorted(appendonly.WORKER_ONLY | {appendonly.WAITING}))
def test_web_moves_no_head_and_takes_nothing_from_the_queue(acme: Tenant, table: str) -> None:
    databaseroles.grant(connection)
    with acting_as("web"):
        assert refused(f"DELETE FROM {table}")  # noqa: S608
        assert refused(f"SELECT 1 FROM {table} FOR UPDATE")  # noqa: S608


@pytest.mark.parametrize("service", databaseroles.SERVICES)
def test_neither_switches_the_triggers_off(acme: Tenant, service: str) -> None:
    databaseroles.grant(connection)
    with acting_as(service), pytest.raises(DatabaseError, match="must be owner"), transaction.atomic():
        connection.cursor().execute("DROP TRIGGER audit_event_no_update ON audit_event")
