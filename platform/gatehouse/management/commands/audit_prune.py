"""`manage.py audit_prune`: drop events that are older than their tenant's retention, and see or change that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from audit import retention
from audit.models import PLATFORM_CHAIN, Chain
from gatehouse.management.operator import shell_actor, shown_errors, table, tenant_named

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Says what the retention would drop; drops it with --now."""

    help = "Show what is older than the retention, or with --now drop it. Events under legal hold stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whose events, and whether to do it."""
        parser.add_argument("--tenant", metavar="SLUG", help="one tenant's events only")
        parser.add_argument("--now", action="store_true", help="drop them")
        policy = parser.add_mutually_exclusive_group()
        policy.add_argument("--keep-days", type=int, metavar="DAYS", help="keep the tenant's events for so long")
        policy.add_argument("--keep-denied-days", type=int, metavar="DAYS", help="keep its refused acts for so long")
        policy.add_argument("--hold", metavar="NOTE", help="put the tenant under legal hold")
        policy.add_argument("--lift-hold", action="store_true", help="lift it")

    def handle(self, *args: object, **options: Any) -> None:
        """Do it."""
        with shown_errors():
            if self._policy(options):
                return
            slug = options["tenant"]
            chains = [tenant_named(slug).id.hex] if slug and slug != PLATFORM_CHAIN else [PLATFORM_CHAIN]
            if not slug:
                chains = list(Chain.objects.order_by("name").values_list("name", flat=True))
            if options["now"]:
                for chain in chains:
                    self.stdout.write(f"{chain}: {retention.prune(chain, actor=shell_actor())} events dropped")
            else:
                self._show(chains)

    def _policy(self, options: dict[str, Any]) -> bool:
        """Change the policy if that was asked for; say whether it was."""
        days = {"retention_days": options["keep_days"], "denied_retention_days": options["keep_denied_days"]}
        days = {name: value for name, value in days.items() if value is not None}
        if not (days or options["hold"] or options["lift_hold"]):
            return False
        if not options["tenant"]:
            raise CommandError("Name the tenant with --tenant.")
        tenant_id = tenant_named(options["tenant"]).id
        if options["hold"]:
            retention.set_hold(actor=shell_actor(), tenant_id=tenant_id, note=options["hold"])
        elif options["lift_hold"]:
            retention.lift_hold(actor=shell_actor(), tenant_id=tenant_id)
        else:
            retention.set_retention(actor=shell_actor(), tenant_id=tenant_id, **days)
        self._show([tenant_id.hex])
        return True

    def _show(self, chains: list[str]) -> None:
        rows = []
        for chain in chains:
            policy, plan = retention.policy_of(chain), retention.plan(chain)
            days = f"{policy.retention_days}/{policy.denied_retention_days}"
            rows.append((chain, days, plan.events, plan.refusal))
        self.stdout.write(table(("chain", "days/denied", "to drop", "why not"), rows))
