"""`manage.py tenant`: create, list, suspend and activate tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import BaseCommand

from gatehouse.management.operator import shell_actor, shown_errors, table, tenant_named
from tenants import actions
from tenants.models import Tenant
from tenants.states import TenantState

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """Works on tenants as the operator at the shell."""

    help = "Create, list, suspend or activate tenants."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="create a tenant with the default quota")
        create.add_argument("slug", help="its short name: a-z, 0-9 and dashes")
        create.add_argument("--name", help="its full name; the short one without it")
        verbs.add_parser("list", help="list all tenants")
        for verb, text in (("suspend", "let its keys open nothing"), ("activate", "undo suspend")):
            verbs.add_parser(verb, help=text).add_argument("slug")

    def handle(self, *args: object, verb: str, **options: str | None) -> None:
        """Do it."""
        if verb == "list":
            rows = [(tenant.slug, tenant.name, tenant.state, tenant.id.hex) for tenant in Tenant.objects.all()]
            self.stdout.write(table(("slug", "name", "state", "id"), rows))
            return
        slug = str(options["slug"])
        with shown_errors():
            if verb == "create":
                tenant = actions.create_tenant(actor=shell_actor(), name=options["name"] or slug, slug=slug)
                self.stdout.write(f"created the tenant {tenant.slug} ({tenant.id.hex})")
                return
            state = TenantState.SUSPENDED if verb == "suspend" else TenantState.ACTIVE
            actions.set_tenant_state(actor=shell_actor(), tenant=tenant_named(slug), state=state)
            self.stdout.write(f"the tenant {slug} is {state.value}")
