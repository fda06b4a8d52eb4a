"""`manage.py quota`: show and set quotas and the limits of one sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from gatehouse.management.operator import shell_actor, shown_errors, table, tenant_named
from tenants import actions, quota
from tenants.models import LimitRange, Tenant

if TYPE_CHECKING:
    from argparse import ArgumentParser


# Names like max_cpu_milli stand for the whole tenant; with this in front, for one sandbox.
_ONE = "sandbox."


class Command(BaseCommand):
    """Works on quotas as the operator at the shell."""

    help = "Show or set quotas and limit ranges. CPU is in thousandths, memory and disk in MiB."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show what every tenant uses")
        verbs.add_parser("show", help="show all limits of one tenant").add_argument("tenant", help="its slug")
        setting = verbs.add_parser("set", help="change limits")
        setting.add_argument("tenant", help="the tenant's slug")
        setting.add_argument(
            "limits",
            nargs="+",
            metavar="NAME=VALUE",
            help="such as max_sandboxes=10, sandbox.max_cpu_milli=2000 or sandbox.min_tier=container",
        )

    def handle(self, *args: object, verb: str, **options: Any) -> None:
        """Do it."""
        with shown_errors():
            if verb == "list":
                self._list()
            elif verb == "show":
                self._show(tenant_named(options["tenant"]))
            else:
                self._set(tenant_named(options["tenant"]), _values(options["limits"]))

    def _list(self) -> None:
        rows = []
        for tenant in Tenant.objects.all():
            usage = quota.usage(tenant.id)
            pairs = [(getattr(usage.used, name), getattr(usage.allowed, name)) for name in quota.RESOURCES[:4]]
            rows.append((tenant.slug, *(f"{used}/{allowed}" for used, allowed in pairs)))
        self.stdout.write(table(("tenant", *quota.RESOURCES[:4]), rows))

    def _show(self, tenant: Tenant) -> None:
        usage = quota.usage(tenant.id)
        rows: list[tuple[str, object, object]] = [
            (f"max_{name}", getattr(usage.allowed, name), getattr(usage.used, name)) for name in quota.RESOURCES
        ]
        rows += [
            ("max_lifetime_s", usage.max_lifetime_s, None),
            ("creates_per_minute", usage.creates_per_minute, None),
        ]
        limits = LimitRange.everywhere().get(pk=tenant.pk)
        rows += [(f"{_ONE}{name}", getattr(limits, name), None) for name in sorted(actions.RANGE_FIELDS)]
        self.stdout.write(table(("limit", "value", "used"), rows))

    def _set(self, tenant: Tenant, limits: dict[str, Any]) -> None:
        of_one = {name.removeprefix(_ONE): value for name, value in limits.items() if name.startswith(_ONE)}
        of_all = {name: value for name, value in limits.items() if not name.startswith(_ONE)}
        # Half of what was asked for would be worse than nothing.
        with transaction.atomic():
            if of_all:
                actions.set_quota(actor=shell_actor(), tenant=tenant, **of_all)
            if of_one:
                actions.set_limit_range(actor=shell_actor(), tenant=tenant, **of_one)
        self.stdout.write(f"changed {', '.join(sorted(limits))} of {tenant.slug}")


def _values(pairs: list[str]) -> dict[str, int | str]:
    limits: dict[str, int | str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name == f"{_ONE}{actions.MIN_TIER}" and equals:
            limits[name] = value
            continue
        if not (value.isascii() and value.isdigit() and len(value) <= 15):
            raise CommandError(f"Write a limit as NAME=NUMBER, not {pair!r}.")
        limits[name] = int(value)
    return limits
