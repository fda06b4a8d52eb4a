"""`manage.py audit_export`: write events to a file, with proofs or as CSV."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand
from django.utils.dateparse import parse_datetime

from audit import exports
from corekit.errors import InvalidInput
from gatehouse.management.operator import shell_actor, shown_errors, tenant_named

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from datetime import datetime


class Command(BaseCommand):
    """Exports the audit as the operator at the shell; the export is an event itself."""

    help = "Write events to a file: JSON lines with proofs for verify_export.py, or CSV."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whose events, of which time, in which form."""
        parser.add_argument("file", help="where to write; - for standard output")
        parser.add_argument("--tenant", metavar="SLUG", help="one tenant's events; all without it")
        parser.add_argument("--format", choices=sorted(exports.FORMATS), default="jsonl")
        parser.add_argument("--since", metavar="TIME", help="at this time or later, RFC 3339")
        parser.add_argument("--until", metavar="TIME", help="before this time")
        parser.add_argument("--proven", action="store_true", help="leave out what is newer than the last checkpoint")

    def handle(self, *args: object, file: str, **options: Any) -> None:
        """Do it."""
        with shown_errors():
            tenant = tenant_named(options["tenant"]) if options["tenant"] else None
            query = {
                "tenant_id": tenant.id if tenant else None,
                "since": _moment(options["since"], "since"),
                "until": _moment(options["until"], "until"),
            }
            asked = {name: value for name, value in query.items() if value is not None}
            lines = exports.export(actor=shell_actor(), query=asked, form=options["format"], proven=options["proven"])
            if file == "-":
                sys.stdout.writelines(lines)
            else:
                with Path(file).open("w", encoding="utf-8", newline="") as target:
                    target.writelines(lines)


def _moment(text: str | None, name: str) -> datetime | None:
    if text is None:
        return None
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidInput(f"--{name} must be a time such as 2026-01-02T03:04:05Z.", field=name)
    return found
