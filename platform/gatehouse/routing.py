"""All WebSockets of web."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from channels.routing import URLRouter
from django.urls import path, re_path

from audit.consumers import AuditFeed
from gatehouse.console.sockets import Guarded

if TYPE_CHECKING:
    from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope


async def no_websocket(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Close a WebSocket that no path serves, instead of failing on it."""
    await receive()
    await send({"type": "websocket.close", "code": 4404, "reason": "not found"})


websockets = cast(
    "ASGI3Application",
    URLRouter(
        [
            path("ws/audit", cast("Any", Guarded(AuditFeed.as_asgi()))),  # type: ignore[no-untyped-call]
            re_path(r"", cast("Any", no_websocket)),
        ]
    ),
)
