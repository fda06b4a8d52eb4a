"""`manage.py apikey`: create, list and revoke API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from corekit import clock
from gatehouse.management.operator import shell_actor, shown_errors, table, tenant_named
from tenants import actions
from tenants.models import ApiKey
from tenants.policy import SCOPES

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from datetime import datetime


class Command(BaseCommand):
    """Works on API keys as the operator at the shell."""

    help = "Create, list or revoke API keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="create a key and print it, once")
        create.add_argument("--tenant", required=True, help="the tenant's slug")
        create.add_argument("--name", required=True, help="what the key is for")
        create.add_argument("--scope", action="append", dest="scopes", metavar="SCOPE", help=", ".join(SCOPES))
        create.add_argument("--days", type=int, help="days until it expires; never without it")
        listing = verbs.add_parser("list", help="list keys, never their text")
        listing.add_argument("--tenant", help="the tenant's slug; all without it")
        verbs.add_parser("revoke", help="revoke a key for good").add_argument("key", help="the key's id, from list")

    def handle(self, *args: object, verb: str, **options: Any) -> None:
        """Do it."""
        with shown_errors():
            if verb == "create":
                self._create(options["tenant"], options["name"], options["scopes"], options["days"])
            elif verb == "list":
                self._list(options["tenant"])
            else:
                self._revoke(options["key"])

    def _create(self, slug: str, name: str, scopes: list[str] | None, days: int | None) -> None:
        key, plaintext = actions.create_api_key(
            actor=shell_actor(), tenant=tenant_named(slug), name=name, scopes=scopes, expires_at=_expiry(days)
        )
        self.stderr.write(f"created the key {key.id} of {slug}; its text is shown only now:")
        self.stdout.write(plaintext)

    def _list(self, slug: str | None) -> None:
        keys = ApiKey.everywhere().select_related("tenant").order_by("tenant__slug", "-created_at")
        if slug is not None:
            keys = keys.filter(tenant=tenant_named(slug))
        rows = [
            (key.id, key.tenant.slug, key.name, f"{key.prefix}…", _state(key), _day(key.last_used_at)) for key in keys
        ]
        self.stdout.write(table(("id", "tenant", "name", "text", "state", "last used"), rows))

    def _revoke(self, key_id: str) -> None:
        key = ApiKey.everywhere().select_related("tenant").filter(id=key_id).first()
        if key is None:
            raise CommandError(f"There is no key {key_id}; `manage.py apikey list` shows them.")
        actions.revoke_api_key(actor=shell_actor(), key=key)
        self.stdout.write(f"revoked the key {key.id} of {key.tenant.slug}")


def _expiry(days: int | None) -> datetime | None:
    if days is None:
        return None
    if not 1 <= days <= 36_500:
        raise CommandError("--days must be from 1 to 36500.")
    return clock.now() + timedelta(days=days)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "active"
    return f"until {_day(key.expires_at)}" if key.expires_at > clock.now() else "expired"


def _day(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M") if at else ""
