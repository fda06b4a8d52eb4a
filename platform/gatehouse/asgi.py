"""The ASGI application: each request to the API of its listener, the server's start and stop, a bound on bodies."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import django
from asgiref.sync import ThreadSensitiveContext
from channels.routing import ProtocolTypeRouter
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, Scope

    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[Mapping[str, Any]], Awaitable[None]]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gatehouse.settings")
django.setup(set_prefix=False)

from django.core.handlers.asgi import ASGIHandler  # noqa: E402  (needs the apps)
from django.http import HttpRequest  # noqa: E402

from corekit.errors import TooLarge  # noqa: E402
from corekit.ids import new_request_id  # noqa: E402
from gatehouse import listeners  # noqa: E402
from gatehouse.internal import InternalApp  # noqa: E402
from gatehouse.middleware import error_answer  # noqa: E402
from gatehouse.routing import websockets  # noqa: E402
from tenants.broker.app import BrokerApp  # noqa: E402

MAX_THREADS = 40


class Handler(ASGIHandler):
    """Django's handler on threads that live on.

    Django gives every request a new thread, and a thread's database connection dies with it. Here a request borrows
    the thread that was free last, with its open connection; when all are busy it waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made = 0
        self._free: asyncio.LifoQueue[ThreadPoolExecutor] = asyncio.LifoQueue()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request. Two of its steps never run at the same time."""
        thread = await self._borrow()
        try:
            async with ThreadSensitiveContext(executor=thread):
                await self.handle(scope, receive, send)
        finally:
            self._free.put_nowait(thread)

    async def _borrow(self) -> ThreadPoolExecutor:
        if self._free.empty() and self._made < MAX_THREADS:
            self._made += 1
            return ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"request-{self._made}")
        return await self._free.get()


class BodyLimit:
    """Refuse bodies above a size while they arrive; Django would first write all of it to a temporary file."""

    def __init__(self, app: ASGI3Application, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request."""
        seen, too_large = 0, False

        async def bounded() -> ASGIReceiveEvent:
            nonlocal seen, too_large
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.max_bytes:
                    too_large = True
                    return {"type": "http.disconnect"}
            return message

        if self._announced(scope) > self.max_bytes:
            await self._refuse(scope, send)
            return
        await self.app(scope, bounded, send)
        if too_large:
            await self._refuse(scope, send)

    @staticmethod
    def _announced(scope: Scope) -> int:
        headers = scope["headers"] if scope["type"] == "http" else ()
        for name, value in headers:
            if name == b"content-length":
                return int(value) if value.isdigit() else 0
        return 0

    async def _refuse(self, scope: Scope, send: ASGISendCallable) -> None:
        # Nothing has made a request of it yet: the path alone says in which form the error goes out.
        request = HttpRequest()
        request.path = str(scope.get("path", ""))
        request.META["gatehouse.request_id"] = new_request_id()
        answer = error_answer(TooLarge(f"The body is larger than {self.max_bytes} bytes."), request=request)
        body = answer.content
        headers = [
            (b"content-type", answer["Content-Type"].encode()),
            (b"x-request-id", request.META["gatehouse.request_id"].encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": body, "more_body": False})


class ByListener:
    """Give a request to the API of the listener that it came in by: no path leads from one to the other."""

    def __init__(self, public: ASGI3Application) -> None:
        self._public = public
        self._internal = InternalApp()
        self._broker: BrokerApp | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif (path := listeners.path_of(scope)) not in listeners.guarded():
            await self._public(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif path == listeners.broker():
            self._broker = self._broker or BrokerApp()
            await self._broker(scope, receive, send)
        else:
            await self._internal(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Answer start and stop. Nothing has to be made ready: the database is opened by the first query."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._broker is not None:
                    await self._broker.close()
                    self._broker = None
                await send({"type": "lifespan.shutdown.complete"})
                return


application = ByListener(
    cast(
        "ASGI3Application",
        ProtocolTypeRouter(
            {
                "http": BodyLimit(cast("ASGI3Application", Handler()), settings.API_MAX_BODY_BYTES),
                "websocket": websockets,
            }
        ),
    )
)
