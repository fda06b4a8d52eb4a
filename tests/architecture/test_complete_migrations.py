"""The migrations make exactly the tables that the models describe."""

from __future__ import annotations

import io

from django.core.management import call_command
from django.db import connection


def test_no_model_changed_without_its_migration(db: None) -> None:
    said = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=said, stderr=said)
    assert said.getvalue().strip() == "No changes detected"


def test_the_system_checks_find_nothing(db: None) -> None:
    call_command("check", fail_level="WARNING", databases=["default"])


def test_the_database_keeps_a_log_that_survives_a_power_cut(db: None) -> None:
    with connection.cursor() as cursor:
        settings = {
            "sqlite": (("PRAGMA journal_mode", "wal"), ("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1)),
            "postgresql": (("SHOW synchronous_commit", "on"),),
        }
        for query, expected in settings[connection.vendor]:
            cursor.execute(query)
            assert cursor.fetchone() == (expected,)
