"""The audit as a Django app."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """The ledger of everything that passes the API and the gateway."""

    name = "audit"
    verbose_name = "Audit"
