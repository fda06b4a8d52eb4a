"""The project as a Django app: it owns the commands and the system checks."""

from django.apps import AppConfig


class GatehouseConfig(AppConfig):
    """Glue."""

    name = "gatehouse"
    verbose_name = "Gatehouse"

    def ready(self) -> None:
        """Register the system checks."""
        from gatehouse import checks  # noqa: F401
