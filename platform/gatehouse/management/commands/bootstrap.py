"""`manage.py bootstrap`: make this host and its database ready, and the first tenant with its key."""

from __future__ import annotations

import os
import secrets
import sys
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from audit import appendonly, databaseroles
from gatehouse.management import hostsetup
from sandboxes.node.builds.store import Manifest, TemplateStore

if TYPE_CHECKING:
    from tenants.models import Tenant, User

TENANT_SLUG = "default"
OPERATOR = "operator"
TEMPLATE = "base"
# The public templates, all made from the one build: name, tier, profile, runtime.
PUBLIC = (
    ("base", "container", "workstation", ""),
    ("base-hardened", "container", "hardened", ""),
    ("base-process", "process", "hardened", ""),
    ("base-gvisor", "container", "workstation", "runsc"),
)


class Command(BaseCommand):
    """Does what is missing and nothing else: run it as often as you like."""

    help = "Make users, directories, keys and database, and the first operator, tenant and API key. Needs root."
    requires_system_checks = ()

    def handle(self, *args: object, **options: object) -> None:
        """Carry out every step that was not done before."""
        if os.geteuid() != 0:
            raise CommandError("bootstrap makes users and directories, which needs root: run it with sudo.")
        try:
            hostsetup.make_accounts()
            hostsetup.make_directories(settings.GATEHOUSE.home)
            hostsetup.make_keys(settings.GATEHOUSE.home)
        except (OSError, hostsetup.HostSetupError) as error:
            raise CommandError(f"The host could not be made ready: {error}") from error
        # The database that root makes is shared with web and worker, and with nobody else.
        previous = os.umask(0o007)
        try:
            self._fill()
        finally:
            os.umask(previous)

    def _fill(self) -> None:
        self._migrate()
        self._fill_bundles()
        self._register_template()
        key = _first_key(self._operator())
        if key is not None:
            self._show_key(key)

    def _migrate(self) -> None:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            self._say("setting up the database")
            call_command("migrate", interactive=False, verbosity=0)
        # SQLite loses a table's triggers when a migration rebuilds it.
        appendonly.install(connection)
        if connection.vendor == "sqlite":
            hostsetup.share_database(settings.GATEHOUSE.database_file)
        elif settings.GATEHOUSE.database_roles:
            self._grant()

    def _fill_bundles(self) -> None:
        from corekit.actor import SYSTEM
        from gatehouse.management import indexes
        from tenants.networks import bundles

        if not settings.GATEHOUSE.bundles_discovered or not bundles.nobody_filled_any():
            return
        for found in indexes.fill_bundles(SYSTEM, grant_private=settings.GATEHOUSE.bundles_grant_private):
            if found.entries:
                self._say(f"@{found.name} stands for {', '.join(found.entries)}, as {found.source} says")
            for note in found.notes:
                self._say(f"@{found.name}: {note}")

    def _grant(self) -> None:
        try:
            databaseroles.grant(connection)
        except DatabaseError as error:
            raise CommandError(
                f"PostgreSQL did not let this login make the roles of web and worker ({str(error).strip()}): give it "
                "CREATEROLE, or set GATEHOUSE_DATABASE_ROLES=off and give each service a login of its own."
            ) from error

    def _register_template(self) -> None:
        manifest = TemplateStore(settings.GATEHOUSE.home).current(TEMPLATE)
        if manifest is None:
            self._say(
                f"template {TEMPLATE} is not built yet: `make run` or `python -m sandboxes.node.builds` builds it"
            )
        elif names := _register(manifest):
            self._say(f"registered build {manifest.build_id} as {', '.join(names)}")

    def _operator(self) -> User:
        from tenants.models import User

        operator = User.objects.filter(is_superuser=True).order_by("pk").first()
        if operator is None:
            password = secrets.token_urlsafe(18)
            operator = User.objects.create_superuser(OPERATOR, password=password)
            self._say(f"made the operator `{OPERATOR}`, whose password is shown only now: {password}")
        return operator

    def _show_key(self, key: str) -> None:
        url = settings.GATEHOUSE.public_url
        self._say("made the tenant `default`; its API key is shown only now:")
        self.stdout.write(f"export E2B_API_KEY={key}\nexport E2B_API_URL={url}\nexport E2B_SANDBOX_URL={url}")
        sys.stdout.flush()

    def _say(self, text: str) -> None:
        self.stderr.write(f"bootstrap: {text}", self.style.NOTICE)


def _register(manifest: Manifest) -> list[str]:
    """Tell the control plane about the build; return the names of the templates that are new or got it."""
    from corekit.actor import SYSTEM
    from sandboxes.actions import register_build
    from sandboxes.models import Template

    known = set(Template.objects.filter(tenant=None).values_list("name", "tier", "profile", "runtime", "build_id"))
    missing = [one for one in PUBLIC if (*one, manifest.build_id) not in known]
    resources = manifest.resources
    for name, tier, profile, runtime in missing:
        register_build(
            actor=SYSTEM,
            name=name,
            build_id=manifest.build_id,
            tier=tier,
            profile=profile,
            runtime=runtime,
            cpu_milli=resources.cpu_milli,
            memory_mib=resources.memory_mib,
            disk_mib=resources.disk_mib,
            pids=resources.pids,
        )
    return [name for name, *_ in missing]


def _first_key(operator: User) -> str | None:
    """Make the tenant `default`, its owner and its key; None when the tenant has had a key before."""
    from corekit.actor import SYSTEM
    from tenants.actions import add_member, create_api_key, create_tenant
    from tenants.models import ApiKey, Membership, Role, Tenant

    tenant: Tenant | None = Tenant.objects.filter(slug=TENANT_SLUG).first()
    if tenant is None:
        if Tenant.objects.exists():
            return None
        tenant = create_tenant(actor=SYSTEM, name="Default", slug=TENANT_SLUG)
    if not Membership.everywhere().filter(tenant=tenant).exists():
        add_member(actor=SYSTEM, tenant=tenant, user=operator, role=Role.OWNER)
    if ApiKey.everywhere().filter(tenant=tenant).exists():
        return None
    _key, plaintext = create_api_key(actor=SYSTEM, tenant=tenant, name="bootstrap")
    return plaintext
