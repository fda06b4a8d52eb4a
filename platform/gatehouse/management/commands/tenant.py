"""`manage.py tenant`: create, list, suspend, activate and erase tenants."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.core.management.base import BaseCommand, CommandError

from audit.models import OperationState
from gatehouse.management.operator import shell_actor, shown_errors, table, tenant_named
from sandboxes import offboarding
from sandboxes.node_client import local_node
from tenants import actions
from tenants.models import Tenant
from tenants.states import TenantState

if TYPE_CHECKING:
    from argparse import ArgumentParser


_PATIENCE_S = 600.0
_LOOK_AGAIN_S = 0.5


class Command(BaseCommand):
    """Works on tenants as the operator at the shell."""

    help = "Create, list, suspend, activate or erase tenants."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="create a tenant with the default quota")
        create.add_argument("slug", help="its short name: a-z, 0-9 and dashes")
        create.add_argument("--name", help="its full name; the short one without it")
        verbs.add_parser("list", help="list all tenants")
        for verb, text in (("suspend", "let its keys open nothing"), ("activate", "undo suspend")):
            verbs.add_parser(verb, help=text).add_argument("slug")
        offboard = verbs.add_parser("offboard", help="end and erase everything of a tenant, for good")
        offboard.add_argument("slug")
        offboard.add_argument("--confirm", default="", metavar="SLUG", help="the slug once more")

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
            if verb == "offboard":
                self._offboard(slug, str(options["confirm"]))
                return
            state = TenantState.SUSPENDED if verb == "suspend" else TenantState.ACTIVE
            actions.set_tenant_state(actor=shell_actor(), tenant=tenant_named(slug), state=state)
            self.stdout.write(f"the tenant {slug} is {state.value}")

    def _offboard(self, slug: str, confirm: str) -> None:
        """Work on it here until it is finished or has to wait; the worker goes on with what is left."""
        operation = offboarding.offboard_tenant(actor=shell_actor(), tenant=tenant_named(slug), confirm=confirm)
        client, until = local_node(), time.monotonic() + _PATIENCE_S
        while not offboarding.work(client, operation, budget_s=_PATIENCE_S):
            operation.refresh_from_db()
            if operation.error or time.monotonic() > until:
                raise CommandError(
                    f"{slug} is not erased yet, and the worker goes on with it (operation {operation.pk}): "
                    f"{operation.error or 'it takes long'}"
                )
            # The worker holds it at the moment, for a few seconds at most.
            time.sleep(_LOOK_AGAIN_S)
        operation.refresh_from_db()
        assert operation.state == OperationState.SUCCEEDED  # noqa: S101  (work said so)
        result = operation.result
        rows = [*result["erased"].items(), *((f"{name} (kept)", count) for name, count in result["kept"].items())]
        self.stdout.write(f"erased the tenant {slug}; operation {operation.pk}")
        self.stdout.write(table(("what", "count"), rows))
