"""`manage.py node`: run the keeper of this host alone."""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.management.base import BaseCommand

# The node holds no credential of the control plane, wherever it was started from.
_NOT_FOR_THE_NODE = (
    *("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"),
    *("GATEHOUSE_SEED", "GATEHOUSE_SECRET_KEY", "GATEHOUSE_LEDGER_KEY", "GATEHOUSE_VAULT_KEY"),
    *("AZURE_CLIENT_SECRET", "IDENTITY_HEADER"),
)


class Command(BaseCommand):
    """Becomes `python -m sandboxes.node`."""

    help = "Run the node: sandboxes, their limits and deadlines, and the gateway. Needs root."
    requires_system_checks = ()

    def handle(self, *args: object, **options: object) -> None:
        """Replace this process; does not return."""
        hidden = {name + suffix for name in _NOT_FOR_THE_NODE for suffix in ("", "_FILE")}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment["PYTHONPATH"] = os.pathsep.join([str(settings.BASE_DIR), str(settings.BASE_DIR / "platform")])
        environment["PYTHONSAFEPATH"] = "1"
        os.execve(sys.executable, [sys.executable, "-m", "sandboxes.node"], environment)
