"""The door of the console's WebSockets: own pages only, and who looks is asked again for everything that is sent."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import QueryDict

from corekit.errors import Forbidden, GatehouseError, NotFound, Unauthorized
from corekit.ids import new_request_id
from gatehouse.console.access import viewer_for
from gatehouse.middleware import client_address
from tenants.models import User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from corekit.web.pages import Viewer

    Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

logger = structlog.get_logger("gatehouse.web")


class Guarded:
    """Let only viewers of the place that `?tenant=` names reach a consumer; without it, operators.

    The consumer finds in its scope `query`, the rest of the query, and `viewer`, a blocking function that says who
    looks now and raises a GatehouseError as soon as session, account or role are gone.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection, or refuse its handshake."""
        query = QueryDict(scope.get("query_string", b""), mutable=True)
        slug = query.pop("tenant", [None])[-1]
        try:
            request = _checked(scope)
            await database_sync_to_async(_viewer)(request, slug)
        except GatehouseError as error:
            logger.info("websocket_refused", path=scope["path"], reason=error.code)
            await receive()
            # Before it is accepted, closing is answering 403.
            await send({"type": "websocket.close", "code": 4000 + error.status})
            return
        await self.app(scope | {"query": query, "viewer": lambda: _viewer(request, slug)}, receive, send)


def _checked(scope: dict[str, Any]) -> ASGIRequest:
    """Return the handshake as a request. Raises Forbidden unless a page of this very host asks.

    Browsers send cookies with the handshakes of any page, and no other rule of theirs stands before a WebSocket.
    """
    request = ASGIRequest(scope | {"type": "http", "method": "GET"}, BytesIO())
    try:
        host = request.get_host()
    except DisallowedHost as error:
        raise Forbidden("This host name is not served.") from error
    origin = urlsplit(request.META.get("HTTP_ORIGIN", ""))
    if origin.scheme not in {"http", "https"} or origin.netloc != host:
        raise Forbidden("Only pages of this host may connect.")
    if settings.SESSION_COOKIE_SECURE and origin.scheme != "https":
        raise Forbidden("Only pages over HTTPS may connect.")
    request.META["gatehouse.origin"] = client_address(request)
    request.META["gatehouse.request_id"] = new_request_id()
    return request


def _viewer(request: ASGIRequest, slug: str | None) -> Viewer:
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not key:
        raise Unauthorized("This needs a session.")
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
    user = get_user(request)
    if not isinstance(user, User) or not user.is_active:
        raise Unauthorized("The session has ended.")
    try:
        return viewer_for(user, slug, request.META)
    except NotFound as error:
        raise Forbidden("There is no place for you here.") from error
