"""The worker's application. Start it with `manage.py worker`."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import setup_logging
from django.conf import settings

from corekit import logs

# Celery's own command finds this module before anything has named the settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gatehouse.settings")

app = Celery("gatehouse")
app.config_from_object(settings.CELERY)
app.autodiscover_tasks()


def _keep_our_logs(**_: object) -> None:
    """Log as every other process does; without a receiver Celery would install its own format."""
    logs.configure("worker", settings.GATEHOUSE.log_level)


setup_logging.connect(_keep_our_logs, weak=False)
