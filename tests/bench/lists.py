"""A page of the list when the tenant has ten thousand sandboxes: by the API, and by the bare query."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.client import Wire
    from tests.live import Stack

_MANY = 10_000
_TABLE = "sandboxes_sandbox"
_PAGE = f"SELECT * FROM {_TABLE} WHERE tenant_id = ? AND ended_at IS NULL ORDER BY started_at DESC, id LIMIT 101"  # noqa: S608


def measure_list(
    stack: Stack, wire: Wire, repeat: Callable[[int, Callable[[], object]], list[float]]
) -> tuple[list[float], list[float]]:
    """Return the times of the first page and of its query."""
    sandbox_id = wire.create()
    with _many_rows(stack, sandbox_id) as (database, tenant_id):
        connection = http.client.HTTPConnection("127.0.0.1", stack.port)
        pages = repeat(200, lambda: _page(connection, stack.key))
        connection.close()
        bare = repeat(200, lambda: database.execute(_PAGE, (tenant_id,)).fetchall())
    wire.kill()
    return pages, bare


@contextlib.contextmanager
def _many_rows(stack: Stack, sandbox_id: str) -> Iterator[tuple[sqlite3.Connection, str]]:
    """Keep ten thousand copies of a row, while the worker, which would find that no such sandbox runs, stands still."""
    worker = stack.pid_of("worker")
    os.kill(worker, signal.SIGSTOP)
    database = sqlite3.connect(stack.home / "db" / "gatehouse.sqlite3", timeout=30, isolation_level=None)
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({_TABLE})") if row[1] not in ("id", "started_at")]
    try:
        names = ", ".join(f'"{name}"' for name in columns)
        database.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {_MANY}) "  # noqa: S608
            f"INSERT INTO {_TABLE} (id, started_at, {names}) "
            f"SELECT printf('ibench%05d', i), datetime(started_at, '-' || i || ' seconds'), {names} "
            f"FROM {_TABLE}, n WHERE id = ?",
            (sandbox_id,),
        )
        (tenant_id,) = database.execute(f"SELECT tenant_id FROM {_TABLE} WHERE id = ?", (sandbox_id,)).fetchone()  # noqa: S608
        yield database, str(tenant_id)
    finally:
        database.execute(f"DELETE FROM {_TABLE} WHERE id LIKE 'ibench%'")  # noqa: S608
        database.close()
        os.kill(worker, signal.SIGCONT)


def _page(connection: http.client.HTTPConnection, key: str) -> bytes:
    connection.request("GET", "/v2/sandboxes?limit=100", headers={"X-API-KEY": key})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200 or not answer.headers["X-Next-Token"]:
        raise RuntimeError(f"no full page: {answer.status} {body[:200]!r}")
    return body
