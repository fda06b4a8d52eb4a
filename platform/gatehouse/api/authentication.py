"""Who calls the API: the key in `X-API-KEY` or as a bearer token, or an operator's session of the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from rest_framework.authentication import BaseAuthentication, CSRFCheck

from corekit.errors import Forbidden
from gatehouse.console.access import is_operator, operator_actor
from tenants.authentication import authenticate
from tenants.models import User

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
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


class OperatorSession(BaseAuthentication):
    """Authenticate an operator by the console's session cookie; accounts that are no staff are nobody here.

    A cookie counts only under our own host names, and with the console's CSRF token for whatever changes something.
    Requests without the cookie pay nothing for it.
    """

    def authenticate(self, request: Request) -> tuple[Principal, Actor] | None:
        """Return the operator, or None without a session. Raises Forbidden without the CSRF token."""
        session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        if not session_key:
            return None
        plain: HttpRequest = request._request
        plain.get_host()
        plain.session = SessionStore(session_key)
        user = get_user(plain)
        if not (isinstance(user, User) and is_operator(user)):
            return None
        _require_own_page(plain)
        actor = operator_actor(user, request.META)
        return Principal(actor), actor


def _require_own_page(request: HttpRequest) -> None:
    check = CSRFCheck(_no_answer)
    check.process_request(request)
    if reason := check.process_view(request, _no_answer, (), {}):
        raise Forbidden(f"A session needs the console's CSRF token in X-CSRFToken: {reason}", field="X-CSRFToken")


def _no_answer(request: HttpRequest) -> HttpResponse:
    raise AssertionError("the check is asked, not served")
