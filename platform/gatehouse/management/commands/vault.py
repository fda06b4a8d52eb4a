"""`manage.py vault`: how the vaults are, and the embedded one's master keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from django.core.management.base import BaseCommand
from django.db.models import Count

from gatehouse.management.operator import shell_actor, shown_errors, table
from tenants.secretmodels import Secret
from tenants.secrets import actions, selectors
from tenants.vaults import choosing, rotating, tenantkeys

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Works on vaults as the operator at the shell. Everything may be done while all runs."""

    help = "Show the vaults, change the embedded vault's master key, erase what deleted secrets left behind."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("status", help="show whether the vaults work, and what is in them")
        verbs.add_parser("rotate", help="make a new master key and seal all tenants' keys under it")
        verbs.add_parser("rewrap", help="seal what is under older master keys under the newest one")
        retire = verbs.add_parser("retire", help="take an old master key away, for good")
        retire.add_argument("key", metavar="ID", help="as `status` shows it")
        verbs.add_parser("sweep", help="erase deleted secrets in vaults that were away when they were deleted")

    def handle(self, *args: object, verb: str, key: str = "", **options: object) -> None:
        """Do it."""
        with shown_errors():
            if verb == "status":
                self._status()
            elif verb == "rotate":
                newest, count = rotating.rotate(actor=shell_actor())
                self._say(f"the newest master key is {newest}; {count} tenants' keys are under it now")
            elif verb == "rewrap":
                count = rotating.rewrap(actor=shell_actor())
                self._say(f"{count} tenants' keys were under older master keys, and are under the newest one now")
            elif verb == "retire":
                rotating.retire(actor=shell_actor(), master_id=key)
                self._say(f"the master key {key} is gone")
            else:
                left = actions.erase_deleted(selectors.deleted_and_kept())
                self._say(f"{left} deleted secrets are still in vaults that are away")

    def _status(self) -> None:
        """Show it; the exit status is 1 when a vault does not work."""
        counts = dict(
            Secret.everywhere().filter(deleted_at=None).values_list("vault").annotate(Count("pk")).order_by("vault")
        )
        rows, sick = [], False
        for name, one in choosing.configured().items():
            health = one.vault.health()
            sick = sick or not health.ok
            said = health.message if health.ok else f"{health.message} Mend: {health.fix or 'see the log'}."
            rows.append((name, "ok" if health.ok else "NO", counts.pop(name, 0), said))
        rows += [(name, "NO", count, "It is not configured any more.") for name, count in counts.items()]
        self._say(table(("vault", "", "secrets", "how it is"), rows))
        self._say("")
        self._say(table(("master key", "tenants' keys under it"), self._masters()))
        if left := selectors.deleted_and_kept().count():
            self._say(f"\n{left} deleted secrets are still in their vaults: `manage.py vault sweep` erases them")
        if sick or counts:
            sys.exit(1)

    def _masters(self) -> list[tuple[str, str]]:
        """Return the master keys in their order, and those that are missing."""
        counts = tenantkeys.count_by_master()
        vault = choosing.embedded()
        known = [one.id for one in vault.masters.all()] if vault.health().ok else []
        rows = [(f"{one}{' (newest)' if one == known[0] else ''}", str(counts.pop(one, 0))) for one in known]
        return rows + [(f"{one} (not there)", str(count)) for one, count in sorted(counts.items())]

    def _say(self, text: str) -> None:
        self.stdout.write(text)
