"""The console as a Django app, and the accounts app inside it."""

from __future__ import annotations

from allauth.account.apps import AccountConfig
from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """The shell. It has no tables; being an app gives it template tags."""

    name = "gatehouse.console"
    label = "console"
    verbose_name = "Console"


class AccountsConfig(AccountConfig):
    """Signing in. Its middleware runs for pages only, where the original looks for it in `MIDDLEWARE`."""

    def ready(self) -> None:
        """Register the checks of the original's settings."""
        from allauth.account import checks  # noqa: F401
