"""How people sign in: by name and password, with a limit on guesses for each address and each name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allauth.account.adapter import DefaultAccountAdapter

from gatehouse.middleware import client_address

if TYPE_CHECKING:
    from django.http import HttpRequest

# Callers that no address is known of share one limit.
_UNKNOWN = "unknown"


class Adapter(DefaultAccountAdapter):
    """Our answers to what the accounts app asks."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Refuse: operators make accounts."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address that guesses are counted for."""
        return client_address(request) or _UNKNOWN

    def add_message(self, *args: object, **kwargs: object) -> None:
        """Say nothing: the page that follows shows that somebody is signed in or out."""
