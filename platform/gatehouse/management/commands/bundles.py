"""`manage.py bundles`: the hosts that `@python`, `@npm`, `@debian`, `@git` and names of one's own stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from gatehouse.management import indexes
from gatehouse.management.operator import shell_actor, shown_errors, table
from tenants.models import Bundle
from tenants.networks import actions

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Works on bundles as the operator at the shell."""

    help = "Show, find or set the hosts that bundles stand for in network policies."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show every bundle")
        finding = verbs.add_parser("discover", help="ask this machine's pip, npm, apt and git for their hosts")
        finding.add_argument(
            "--grant-private",
            action="store_true",
            help="let sandboxes reach hosts whose addresses are not public, such as a mirror of the company",
        )
        setting = verbs.add_parser("set", help="say what a bundle stands for")
        setting.add_argument("name", help="such as python")
        setting.add_argument("entries", nargs="*", metavar="ENTRY", help="such as index.example.com:443; none empty it")
        setting.add_argument(
            "--private", nargs="*", default=[], metavar="RANGE", help="addresses that are not public and may be reached"
        )

    def handle(self, *args: object, verb: str, **options: Any) -> None:
        """Do it."""
        with shown_errors():
            if verb == "list":
                self._list()
            elif verb == "discover":
                self._discover(grant_private=options["grant_private"])
            else:
                self._set(options["name"].removeprefix("@"), options["entries"], options["private"])

    def _list(self) -> None:
        rows = [
            (f"@{one.name}", " ".join(one.entries), " ".join(one.private), one.source) for one in Bundle.objects.all()
        ]
        self.stdout.write(table(("bundle", "entries", "private", "source"), rows))

    def _discover(self, *, grant_private: bool) -> None:
        for found in indexes.fill_bundles(shell_actor(), grant_private=grant_private):
            self.stdout.write(f"@{found.name}: {' '.join(found.entries) or 'as it was'}")
            for note in found.notes:
                self.stderr.write(f"@{found.name}: {note}", self.style.NOTICE)

    def _set(self, name: str, entries: list[str], private: list[str]) -> None:
        bundle = actions.set_bundle(actor=shell_actor(), name=name, entries=entries, private=private)
        self.stdout.write(f"@{name} stands for {' '.join(bundle.entries) or 'no host'}")
