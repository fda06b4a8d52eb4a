"""Who calls the API: the key in `X-API-KEY`, or as a bearer token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rest_framework.authentication import BaseAuthentication

from tenants.authentication import authenticate

if TYPE_CHECKING:
    from rest_framework.request import Request

    from corekit.actor import Actor

_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Principal:
    """What the REST framework sees as the user: the actor behind a key. It is no account and has no session."""

    actor: Actor
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_active: bool = True

    def __str__(self) -> str:
        return self.actor.name


def presented_key(request: Request) -> str | None:
    """Return the key that a request carries, if any; `X-API-KEY` counts before `Authorization`."""
    key = request.META.get("HTTP_X_API_KEY", "").strip()
    if key:
        return str(key)
    header = request.META.get("HTTP_AUTHORIZATION", "").strip()
    return header[len(_BEARER) :].strip() if header.lower().startswith(_BEARER) else None


class ApiKeyAuthentication(BaseAuthentication):
    """Authenticate by API key. `request.auth` is then the Actor, `request.user` wraps it."""

    def authenticate(self, request: Request) -> tuple[Principal, Actor] | None:
        """Return the caller, or None without a key. Raises Unauthorized or Forbidden."""
        key = presented_key(request)
        if key is None:
            return None
        actor = authenticate(
            key,
            origin=request.META.get("gatehouse.origin"),
            request_id=request.META.get("gatehouse.request_id"),
        )
        return Principal(actor), actor

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge; having one makes a missing key 401 instead of 403."""
        return "ApiKey"
