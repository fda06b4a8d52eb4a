"""The tenants as a Django app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TenantsConfig(AppConfig):
    """Tenants, members, API keys, quotas, network policies."""

    name = "tenants"
    verbose_name = "Tenants"

    def ready(self) -> None:
        """See to it that the platform's network policies and services exist wherever the tables do."""
        from tenants.broker import services
        from tenants.networks import presets

        post_migrate.connect(presets.make_missing, sender=self)
        post_migrate.connect(services.make_missing, sender=self)
