"""`manage.py up`: run everything that one machine needs, in the foreground."""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Becomes the supervisor, which starts node, web and worker, each as its own user."""

    help = "Start node, gateway, web and worker and keep them running until Ctrl-C; sandboxes outlive it."
    requires_system_checks = ()

    def handle(self, *args: object, **options: object) -> None:
        """Replace this process; does not return."""
        path = os.pathsep.join([str(settings.BASE_DIR), str(settings.BASE_DIR / "platform")])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "sandboxes.node.supervisor"], environment)
