"""The tenants as a Django app."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Tenants, members, API keys, quotas."""

    name = "tenants"
    verbose_name = "Tenants"
