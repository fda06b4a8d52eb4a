"""What the operator's commands share: who acts, which tenant is meant, how errors and lists are shown."""

from __future__ import annotations

import contextlib
import getpass
import os
from typing import TYPE_CHECKING

from django.core.management.base import CommandError

from corekit.actor import Actor
from corekit.errors import GatehouseError
from tenants.models import Tenant
from tenants.policy import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def shell_actor() -> Actor:
    """Return the operator at this machine's shell: who can read the seed may do everything anyway."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = str(os.geteuid())
    return Actor(
        kind="system", id=f"shell:{name}"[:64], name=name, tenant_id=None, scopes=frozenset({EVERYTHING}), auth="shell"
    )


def tenant_named(slug: str) -> Tenant:
    """Return the tenant with a slug. Raises CommandError."""
    tenant = Tenant.objects.filter(slug=slug).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {slug}; `manage.py tenant list` shows them.")
    return tenant


@contextlib.contextmanager
def shown_errors() -> Iterator[None]:
    """Show a refusal as one sentence instead of a traceback."""
    try:
        yield
    except GatehouseError as error:
        raise CommandError(error.message) from error


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned columns."""
    lines = [list(header), *([("-" if cell in (None, "") else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
