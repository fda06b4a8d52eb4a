"""`manage.py secrets`: a tenant's secrets, from the operator's shell. A value is read from stdin, never an argument."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from django.core.management.base import BaseCommand

from corekit.errors import NotFound
from gatehouse.management.operator import shell_actor, shown_errors, table, tenant_named
from tenants.secretmodels import Secret, normal_name
from tenants.secrets import actions

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from tenants.models import Tenant


class Command(BaseCommand):
    """Works on secrets as the operator at the shell. There is no way to show a value."""

    help = "List, set, link, disable, enable or delete a tenant's secrets."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="list a tenant's secrets").add_argument("tenant", help="its slug")
        put = verbs.add_parser("set", help="create a secret or give it a new value, which is read from stdin")
        link = verbs.add_parser("link", help="make a secret of an entry that is in a vault already")
        for verb in (put, link):
            verb.add_argument("tenant", help="the tenant's slug")
            verb.add_argument("name")
        put.add_argument("--vault", help="the vault of a new secret; the default one without it")
        link.add_argument("--vault", required=True)
        link.add_argument("--entry", required=True, help="the entry's name in the vault")
        for name, text in (
            ("disable", "give a secret to nobody"),
            ("enable", "undo disable"),
            ("delete", "delete it, for good"),
        ):
            verb = verbs.add_parser(name, help=text)
            verb.add_argument("tenant", help="the tenant's slug")
            verb.add_argument("name")

    def handle(
        self,
        *args: object,
        verb: str,
        tenant: str,
        name: str = "",
        vault: str | None = None,
        entry: str = "",
        **options: object,
    ) -> None:
        """Do it."""
        owner, actor = tenant_named(tenant), shell_actor()
        with shown_errors():
            if verb == "list":
                self._list(owner)
            elif verb == "set":
                self._set(owner, name, vault)
            elif verb == "link":
                actions.link_secret(actor=actor, tenant=owner, name=name, vault=str(vault), entry=entry)
                self.stdout.write(f"the secret {normal_name(name)} is the entry {entry} of the vault {vault}")
            elif verb == "delete":
                actions.delete_secret(actor=actor, secret=_secret(owner, name))
                self.stdout.write(f"deleted the secret {normal_name(name)}")
            else:
                act = actions.disable_secret if verb == "disable" else actions.enable_secret
                secret = act(actor=actor, secret=_secret(owner, name))
                self.stdout.write(f"the secret {secret.name} is {secret.state}")

    def _list(self, tenant: Tenant) -> None:
        rows = [
            (one.name, one.state, one.current_version, one.vault, one.entry, one.updated_at.isoformat("T", "seconds"))
            for one in Secret.everywhere().filter(tenant=tenant, deleted_at=None)
        ]
        self.stdout.write(table(("name", "state", "version", "vault", "entry", "changed"), rows))

    def _set(self, tenant: Tenant, name: str, vault: str | None) -> None:
        value = getpass.getpass("value: ") if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
        found = _named(tenant, name)
        if found is None:
            secret = actions.create_secret(actor=shell_actor(), tenant=tenant, name=name, value=value, vault=vault)
        else:
            secret = actions.add_version(actor=shell_actor(), secret=found, value=value)
        self.stdout.write(f"the secret {secret.name} has version {secret.current_version}, in the vault {secret.vault}")


def _named(tenant: Tenant, name: str) -> Secret | None:
    rows = Secret.everywhere().filter(tenant=tenant, name=normal_name(name), deleted_at=None)
    return rows.select_related("tenant").first()


def _secret(tenant: Tenant, name: str) -> Secret:
    if (found := _named(tenant, name)) is None:
        raise NotFound(f"{tenant.slug} has no secret {normal_name(name)}.")
    return found
