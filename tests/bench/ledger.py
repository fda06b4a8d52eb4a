"""The ledger's own figures on one database: recorded, sealed, verified, and a page of the audit browser.

`python -m tests.bench.ledger` runs in a process of its own, because Django can be set up for one database only:
that of GATEHOUSE_HOME, or of DATABASE_URL. Prints one JSON object, row name → {"samples", "floor", "unit"}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenants.models import Tenant

BATCH = 200
BATCHES = 100
SINGLES = 500
FEW, MANY = 10_000, 1_000_000
PAGES = 60
NODE = "bench-node"

Rows = dict[str, dict[str, Any]]


def rate(events: int, act: Callable[[], object]) -> float:
    """Return how many events a second `act` handles."""
    began = time.perf_counter()
    act()
    return events / (time.perf_counter() - began)


def node_event(number: int, tenant_id: str) -> dict[str, Any]:
    """Return an event as a node's spool holds it: a command with its judgement."""
    from corekit import clock, ids

    return {
        "id": ids.new_event_id(),
        "seq": number,
        "at": clock.epoch_ms(),
        "node_id": NODE,
        "sandbox": f"ibench{number % 50:015d}",
        "generation": 1,
        "tenant": tenant_id,
        "code": "command.start",
        "phase": "result",
        "ref": ids.new_event_id(),
        "key_id": "00112233aabbccdd",
        "origin": "203.0.113.7",
        "request_id": ids.new_request_id(),
        "tool_name": "exec_code",
        "args_hash": "5e" * 32,
        "args_shape": {"args": "list(2)", "cmd": "text(9)", "stdin": "boolean"},
        "risk_score": number % 101,
        "risk_reasons": ["starts a program", "reads a file outside the workspace"],
        "outcome": "ok",
        "duration_ms": 3.25,
        "details": {"pid": 4711, "exit_code": 0},
    }


def measure_recording(tenant: Tenant, rows: Rows) -> None:
    """One event a transaction, then many: beside bare inserts of as many bytes."""
    from audit import recording
    from corekit.actor import SYSTEM

    def single() -> None:
        recording.record(
            "sandbox.timeout_set",
            actor=SYSTEM,
            object_type="sandbox",
            object_id="ibench",
            tenant_id=tenant.pk,
            details={"timeout_ms": 300_000},
        )

    single()
    rows["events recorded single"] = {
        "samples": [rate(1, single) for _ in range(SINGLES)],
        "floor": [rate(1, lambda: bare_inserts(1)) for _ in range(SINGLES)],
    }
    hexed = tenant.pk.hex
    batches = [
        [(node_event(start + number, hexed), tenant.pk) for number in range(BATCH)]
        for start in range(0, BATCH * BATCHES, BATCH)
    ]
    samples = [rate(BATCH, lambda batch=batch: recording.record_node_events(batch)) for batch in batches]  # type: ignore[misc]
    floor = [rate(BATCH, lambda: bare_inserts(BATCH)) for _ in range(BATCHES)]
    rows["events recorded batch"] = {"samples": samples, "floor": floor}


def bare_inserts(count: int) -> None:
    """Insert rows of an event's size into a table without indexes, in one transaction."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany("INSERT INTO bench_floor (body) VALUES (%s)", [("x" * 1200,)] * count)


def measure_sealing(rows: Rows) -> None:
    """Seal everything that waits; the floor is hashing as many bytes."""
    import hashlib

    from audit import sealing
    from audit.models import Unsealed

    samples = []
    while waiting := Unsealed.objects.count():
        began = time.perf_counter()
        sealing.seal()
        taken = waiting - Unsealed.objects.count()
        samples.append(taken / (time.perf_counter() - began))
    hashed = rate(BATCH, lambda: [hashlib.sha256(b"x" * 1200).digest() for _ in range(BATCH)])
    rows["events sealed"] = {"samples": samples, "floor": [hashed]}


def measure_verifying(rows: Rows) -> None:
    """Verify all of it; the floor is reading as many rows."""
    from django.db import connection

    from audit.models import Event
    from audit.verification.checking import Request, trusted_keys, verify

    asked = Request(keys=trusted_keys(None))
    count = Event.objects.count()

    def read() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM audit_event")
            while cursor.fetchmany(2000):
                pass

    def check() -> None:
        if (report := verify(asked)).status != 0:
            raise RuntimeError(f"the chain does not verify: {report}")

    check()
    rows["events verified"] = {
        "samples": [rate(count, check) for _ in range(5)],
        "floor": [rate(count, read) for _ in range(5)],
    }


def measure_page(tenant: Tenant, rows: Rows) -> None:
    """The first page of a tenant's audit, with ten thousand events and with a million: server time alone."""
    from django.test import Client

    from tenants.models import User

    browser = Client(headers={"host": "localhost"})
    browser.force_login(User.objects.filter(is_superuser=True).get())
    path = f"/t/{tenant.slug}/audit"
    fill(tenant, FEW)
    few = page_times(browser, path)
    fill(tenant, MANY)
    rows["audit page at 1,000,000 events"] = {"samples": page_times(browser, path), "floor": few, "unit": "ms"}


def page_times(browser: Any, path: str) -> list[float]:
    """Return the server's time for each of some pages, in ms."""
    samples = []
    for number in range(PAGES + 3):
        began = time.perf_counter()
        answer = browser.get(path)
        elapsed = (time.perf_counter() - began) * 1e3
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code}")
        if number >= 3:
            samples.append(elapsed)
    return samples


def fill(tenant: Tenant, count: int) -> None:
    """Copy events until the tenant has so many; only the copies' ids, times and sandboxes differ."""
    from django.db import connection

    from audit.models import Event

    missing = count - Event.objects.filter(tenant_id=tenant.pk).count()
    template = Event.objects.filter(tenant_id=tenant.pk, code="command.start").values_list("pk", flat=True)[0]
    columns = [field.column for field in Event._meta.concrete_fields if field.column not in {"id", "at", "sandbox_id"}]
    names = ", ".join(f'"{name}"' for name in columns)
    if connection.vendor == "postgresql":
        numbers = "generate_series(%s::int, %s::int) n(i)"
        name, at = "lpad(to_hex(i), 32, '0')", "at - i * interval '1 second'"
    else:
        numbers = "(WITH RECURSIVE n(i) AS (VALUES (%s) UNION ALL SELECT i + 1 FROM n WHERE i < %s) SELECT i FROM n)"
        name, at = "printf('%%032x', i)", "datetime(at, '-' || i || ' seconds')"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO audit_event (id, at, sandbox_id, {names})"  # noqa: S608
            f" SELECT {name}, {at}, 'ifill' || (i %% 50), {names} FROM {numbers}, audit_event WHERE id = %s",
            [count - missing + 1, count, template],
        )
        cursor.execute("DELETE FROM audit_unsealed")
        cursor.execute("ANALYZE")


def main() -> None:
    """Set Django up, measure, print."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gatehouse.settings")
    import django

    django.setup()

    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection

    from corekit.actor import SYSTEM
    from gatehouse.management import hostsetup
    from tenants.actions import create_tenant
    from tenants.models import User

    hostsetup.make_accounts()
    hostsetup.make_directories(settings.GATEHOUSE.home)
    hostsetup.make_keys(settings.GATEHOUSE.home)
    call_command("migrate", interactive=False, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_floor (body text)")
    User.objects.create_superuser("bench", password=None)
    tenant = create_tenant(actor=SYSTEM, name="Bench", slug="bench")
    rows: Rows = {}
    measure_recording(tenant, rows)
    measure_sealing(rows)
    measure_verifying(rows)
    measure_page(tenant, rows)
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
