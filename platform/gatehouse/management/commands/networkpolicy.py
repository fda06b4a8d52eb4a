"""`manage.py networkpolicy`: what sandboxes may reach, and what they can't go beyond."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from gatehouse.management.operator import shell_actor, shown_errors, table, tenant_named
from sandboxes import flows
from tenants.models import NetworkPolicy, Tenant
from tenants.networks import actions, checking
from tenants.networks.compiling import policy_named

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable

    from sandboxes.flows import Counted
    from tenants.networks.actions import Saved

_TENANT = "the tenant's slug"
_ENTRY = "such as api.example.com:443, '*.example.com:443', '!ads.example.com:443' or @python"


class Command(BaseCommand):
    """Works on network policies as the operator at the shell."""

    help = "Show, write and try network policies; set tenants' defaults and ceilings; deny hosts to everybody."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        one = verbs.add_parser("list", help="show the policies of the platform, or of a tenant too")
        one.add_argument("--tenant", help=_TENANT)
        for verb, said in (("show", "show a policy"), ("delete", "delete a policy")):
            one = verbs.add_parser(verb, help=said)
            one.add_argument("name")
            one.add_argument("--tenant", help=f"{_TENANT}; of the platform without it")
        for verb, said in (("create", "make a policy"), ("replace", "make a policy something else, whole")):
            one = verbs.add_parser(verb, help=said)
            one.add_argument("name")
            one.add_argument("entries", nargs="*", metavar="ENTRY", help=_ENTRY)
            one.add_argument("--tenant", help=f"{_TENANT}; of the platform without it")
            one.add_argument("--fields", default="{}", metavar="JSON", help='such as {"ingress": [3000], "dns": false}')
        one = verbs.add_parser("check", help="say what a policy says about a host")
        one.add_argument("name")
        one.add_argument("target", metavar="HOST:PORT")
        one.add_argument("--tenant", help=f"{_TENANT}, whose ceiling counts")
        self._add_settings(verbs)
        one = verbs.add_parser("replay", help="say what a policy would have stopped and opened")
        one.add_argument("tenant", help=_TENANT)
        one.add_argument("name")
        one.add_argument("--hours", type=int, default=24)
        one = verbs.add_parser("learn", help="print the least policy that lets through what a sandbox did")
        one.add_argument("sandbox")
        one.add_argument("--hours", type=int, default=24)

    def _add_settings(self, verbs: Any) -> None:
        one = verbs.add_parser("default", help="set the policy of sandboxes that name none")
        one.add_argument("tenant", help=_TENANT)
        one.add_argument("name", nargs="?", help="the ceiling alone without it")
        one = verbs.add_parser("ceiling", help="set what no sandbox of a tenant goes beyond")
        one.add_argument("tenant", help=_TENANT)
        one.add_argument("name", nargs="?", help="a policy of the platform; `restricted` without it")
        one.add_argument("--public-internet", action="store_true", help="every public host that it does not deny")
        one = verbs.add_parser("private", help="grant a tenant addresses that are not public")
        one.add_argument("tenant", help=_TENANT)
        one.add_argument("ranges", nargs="*", metavar="RANGE", help="such as 10.20.0.0/16; none takes all back")
        one = verbs.add_parser("deny", help="set what no sandbox of any tenant reaches")
        one.add_argument("entries", nargs="*", metavar="ENTRY", help="such as 'tracker.example:*'; none denies nothing")

    def handle(self, *args: object, verb: str, **options: Any) -> None:
        """Do it."""
        with shown_errors():
            getattr(self, f"_{verb}")(**{name: options[name] for name in _ARGUMENTS[verb]})

    def _list(self, tenant: str | None) -> None:
        whose = [None] if tenant is None else [None, tenant_named(tenant)]
        rows = [
            (one.name, one.version, row.slug if row else "", one.spec["mode"], " ".join(one.spec["egress"]))
            for row in whose
            for one in NetworkPolicy.objects.filter(tenant=row, deleted_at=None)
        ]
        self.stdout.write(table(("name", "version", "tenant", "mode", "egress"), rows))

    def _show(self, name: str, tenant: str | None) -> None:
        chosen = _policy(name, tenant)
        self.stdout.write(json.dumps({"name": name, "version": chosen.version, **chosen.spec}, indent=2))

    def _create(self, name: str, entries: list[str], tenant: str | None, fields: str) -> None:
        owner = None if tenant is None else tenant_named(tenant)
        self._say(actions.create_policy(actor=shell_actor(), tenant=owner, name=name, body=_body(entries, fields)))

    def _replace(self, name: str, entries: list[str], tenant: str | None, fields: str) -> None:
        chosen = _policy(name, tenant)
        self._say(
            actions.replace_policy(
                actor=shell_actor(), policy=chosen, version=chosen.version, body=_body(entries, fields)
            )
        )

    def _delete(self, name: str, tenant: str | None) -> None:
        actions.delete_policy(actor=shell_actor(), policy=_policy(name, tenant))
        self.stdout.write(f"deleted the network policy {name}")

    def _check(self, name: str, target: str, tenant: str | None) -> None:
        owner = None if tenant is None else tenant_named(tenant)
        host, colon, port = target.rpartition(":")
        if not colon or not port.isdigit() or not 1 <= int(port) <= 65_535:
            raise CommandError("Write what to try as HOST:PORT, such as api.example.com:443.")
        chosen = policy_named(owner, name)
        found = checking.try_host(checking.document(owner, chosen.spec), host, int(port))
        by = f" by {found.rule}" * bool(found.rule) + f" of the layer {found.layer}" * bool(found.layer)
        said = "allowed" if found.allowed else f"denied ({found.reason})"
        self.stdout.write(f"{said}{by}" + f": {found.sentence}" * bool(found.sentence))

    def _default(self, tenant: str, name: str | None) -> None:
        actions.set_default(actor=shell_actor(), tenant=tenant_named(tenant), policy=name)
        self.stdout.write(f"sandboxes of {tenant} that name no policy get {name or 'its ceiling alone'}")

    def _ceiling(self, tenant: str, name: str | None, *, public_internet: bool) -> None:
        actions.set_ceiling(
            actor=shell_actor(), tenant=tenant_named(tenant), policy=name, public_internet=public_internet
        )
        wide = "the public internet under " if public_internet else ""
        self.stdout.write(f"the ceiling of {tenant} is {wide}{name or 'restricted'}")

    def _private(self, tenant: str, ranges: list[str]) -> None:
        network = actions.set_private_ranges(actor=shell_actor(), tenant=tenant_named(tenant), ranges=ranges)
        self.stdout.write(f"granted to {tenant}: {' '.join(network.private_ranges) or 'nothing'}")

    def _deny(self, entries: list[str]) -> None:
        row = actions.set_platform_deny(actor=shell_actor(), entries=entries)
        self.stdout.write(f"denied to everybody: {' '.join(row.deny) or 'nothing'}")

    def _replay(self, tenant: str, name: str, hours: int) -> None:
        found = flows.replay(shell_actor(), tenant_named(tenant), policy=name, window=timedelta(hours=_hours(hours)))
        self._count("would be stopped", found.broken)
        self._count("would be let through", found.opened)
        self._say_bounds(found.events, cut=found.cut)

    def _learn(self, sandbox: str, hours: int) -> None:
        draft = flows.learn(shell_actor(), sandbox, window=timedelta(hours=_hours(hours)))
        self.stdout.write(json.dumps(draft.body, indent=2))
        for entry in draft.tried:
            self.stderr.write(f"only tried so far: {entry}", self.style.NOTICE)
        for one in draft.left_out:
            self.stderr.write(f"left out: {one.host}:{one.port} ({one.reason})", self.style.NOTICE)
        self._say_bounds(draft.events, cut=draft.cut)

    def _count(self, title: str, rows: Iterable[Counted]) -> None:
        shown = [(one.host, one.port, one.count, one.reason, one.layer) for one in rows]
        self.stdout.write(f"{title}: {'nothing' if not shown else ''}".rstrip())
        if shown:
            self.stdout.write(table(("host", "port", "times", "reason", "layer"), shown))

    def _say_bounds(self, events: int, *, cut: bool) -> None:
        self.stderr.write(f"from {'the newest ' * cut}{events} events", self.style.NOTICE)

    def _say(self, saved: Saved) -> None:
        self.stdout.write(f"{saved.policy.name} has version {saved.policy.version}")
        for warning in saved.warnings:
            self.stderr.write(f"{warning.field}: {warning.message}", self.style.NOTICE)


_ARGUMENTS = {
    "list": ("tenant",),
    "show": ("name", "tenant"),
    "create": ("name", "entries", "tenant", "fields"),
    "replace": ("name", "entries", "tenant", "fields"),
    "delete": ("name", "tenant"),
    "check": ("name", "target", "tenant"),
    "default": ("tenant", "name"),
    "ceiling": ("tenant", "name", "public_internet"),
    "private": ("tenant", "ranges"),
    "deny": ("entries",),
    "replay": ("tenant", "name", "hours"),
    "learn": ("sandbox", "hours"),
}


def _policy(name: str, tenant: str | None) -> NetworkPolicy:
    """Return exactly a tenant's policy, or exactly the platform's."""
    owner: Tenant | None = None if tenant is None else tenant_named(tenant)
    found = NetworkPolicy.objects.select_related("tenant").filter(tenant=owner, name=name, deleted_at=None).first()
    if found is None:
        whose = "the platform" if tenant is None else tenant
        raise CommandError(f"There is no network policy {name} of {whose}; `manage.py networkpolicy list` shows them.")
    return found


def _body(entries: list[str], fields: str) -> dict[str, Any]:
    try:
        body = json.loads(fields)
    except ValueError as error:
        raise CommandError(f"--fields is no JSON: {error}.") from error
    if not isinstance(body, dict) or "egress" in body:
        raise CommandError("--fields is a JSON object of the other fields; entries are written behind the name.")
    return {**body, "egress": entries}


def _hours(hours: int) -> int:
    if not 1 <= hours <= flows.MAX_HOURS:
        raise CommandError(f"--hours is from 1 to {flows.MAX_HOURS}.")
    return hours
