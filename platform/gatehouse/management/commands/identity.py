"""`manage.py identity`: the keys that sign workload identity tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from corekit import clock
from gatehouse.management.operator import shell_actor, shown_errors, table
from tenants.identity import keys
from tenants.identitymodels import IdentityKey

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Works on the issuer's keys as the operator at the shell."""

    help = "Show and rotate the keys that sign workload identity tokens."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show the keys")
        one = verbs.add_parser("rotate", help="make a new key; the others count until their last token has expired")
        one.add_argument(
            "--withdraw", action="store_true", help="the others count no more from now on, as if they were stolen"
        )

    def handle(self, *args: object, verb: str, withdraw: bool = False, **options: Any) -> None:
        """Do it."""
        with shown_errors():
            if verb == "rotate":
                row = keys.rotate(actor=shell_actor(), withdraw=withdraw)
                self.stdout.write(f"{row.pk} signs from {clock.to_rfc3339(row.signs_from)}")
                return
        rows = [
            (row.pk, clock.to_rfc3339(row.signs_from), row.published_until and clock.to_rfc3339(row.published_until))
            for row in IdentityKey.objects.all()
        ]
        self.stdout.write(table(("key", "signs from", "published until"), rows))
