"""What happens around every request. All of it runs on the event loop: an API call pays for no thread twice."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from corekit import tracing
from gatehouse.api import problems
from gatehouse.api.exceptions import error_for_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from corekit.errors import GatehouseError

    SyncChain = Callable[[HttpRequest], HttpResponseBase]
    GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]

logger = structlog.get_logger("gatehouse.web")
_JSON = ("application/json", problems.MEDIA_TYPE)
_QUIET_PATHS = frozenset({"/health"})
_PREFLIGHT_SECONDS = "7200"
_EXPOSED = "X-Request-Id, X-Next-Token, X-Total-Running, Retry-After, Should-Retry"


def is_console(path: str) -> bool:
    """Say whether a path is a page for people. Everything else is the API and answers JSON."""
    return path == "/" or path.startswith(settings.CONSOLE_PREFIXES)


class Around:
    """Base of our middleware: `before` may answer at once, `after` sees every answer. Neither may wait."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._async_call(request)
        response = self.before(request) or self.get_response(request)
        assert isinstance(response, HttpResponseBase)  # noqa: S101  (a sync chain never returns an awaitable)
        return self.after(request, response)

    async def _async_call(self, request: HttpRequest) -> HttpResponseBase:
        response = self.before(request)
        if response is None:
            answer = self.get_response(request)
            response = answer if isinstance(answer, HttpResponseBase) else await answer
        return self.after(request, response)

    def before(self, request: HttpRequest) -> HttpResponseBase | None:
        """Look at a request; a response returned here is the answer."""
        return None

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Look at, change or replace an answer."""
        return response


def client_address(request: HttpRequest) -> str | None:
    """Return the caller's address, or None.

    Only over the unix socket, where there is no peer address, is the gateway on the other side; its one
    X-Forwarded-For counts then. Over TCP anybody could write that header.
    """
    peer = request.META.get("REMOTE_ADDR") or request.META.get("HTTP_X_FORWARDED_FOR", "")
    try:
        return str(ipaddress.ip_address(peer.strip()))
    except ValueError:
        return None


class RequestContext(Around):
    """Give every request an id and an address, bind them to the logs, and write the access line."""

    def before(self, request: HttpRequest) -> HttpResponseBase | None:
        """Name the request and its caller."""
        meta = request.META
        trace = tracing.begin(
            meta.get("HTTP_X_REQUEST_ID", ""), meta.get("HTTP_TRACEPARENT", ""), meta.get("HTTP_USER_AGENT", "")
        )
        request.META["gatehouse.request_id"] = trace.request_id
        request.META["gatehouse.origin"] = client_address(request)
        request.META["gatehouse.started"] = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=trace.request_id, trace_id=trace.trace_id, origin=request.META["gatehouse.origin"]
        )
        return None

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Return the id, and log how the request went."""
        response["X-Request-Id"] = request.META["gatehouse.request_id"]
        if (trace := tracing.current()) is not None:
            response["traceparent"] = trace.traceparent
        # Without a length the server would fall back to chunks.
        if isinstance(response, HttpResponse) and not response.has_header("Content-Length"):
            response["Content-Length"] = str(len(response.content))
        if request.path not in _QUIET_PATHS:
            took = (time.perf_counter() - request.META["gatehouse.started"]) * 1000
            logger.info(
                "request",
                method=request.method,
                path=request.path,
                status=response.status_code,
                duration_ms=round(took, 3),
            )
        structlog.contextvars.clear_contextvars()
        tracing.end()
        return response


class SecurityHeaders(Around):
    """Tell browsers to trust an answer with nothing that it doesn't need."""

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Add the headers that a view did not set itself."""
        headers = response.headers
        policy = settings.CONTENT_SECURITY_POLICY if is_console(request.path) else settings.API_SECURITY_POLICY
        headers.setdefault("Content-Security-Policy", "; ".join(f"{name} {value}" for name, value in policy.items()))
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        if settings.SESSION_COOKIE_SECURE:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        if not is_console(request.path):
            headers.setdefault("Cache-Control", "no-store")
        return response


class CrossOrigin(Around):
    """Let browser programs of any origin use the API, which knows keys and no cookies. Pages stay closed."""

    def before(self, request: HttpRequest) -> HttpResponseBase | None:
        """Answer a preflight, which carries no key."""
        asks = request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META
        if not asks or is_console(request.path):
            return None
        response = HttpResponse(status=204)
        response["Access-Control-Allow-Methods"] = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        response["Access-Control-Allow-Headers"] = request.META.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "*")
        response["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
        return response

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Let the answer of the API be read by any origin."""
        if not is_console(request.path):
            response["Access-Control-Allow-Origin"] = "*"
            response["Access-Control-Expose-Headers"] = _EXPOSED
        return response


class JsonErrors(Around):
    """Turn every error answer of the API that isn't JSON yet into the one JSON form."""

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Replace an error page."""
        is_json = response.headers.get("Content-Type", "").startswith(_JSON)
        if response.status_code < 400 or is_json or is_console(request.path):
            return response
        error = error_for_status(response.status_code, request.path)
        answer = error_answer(error, status=response.status_code, request=request)
        if response.has_header("Allow"):
            answer["Allow"] = response["Allow"]
        return answer


class ConsoleOnly(Around):
    """Run Django's middleware for pages (sessions, CSRF, accounts) for pages only.

    They are made for one thread and would cost an API call, which has no cookies, more than all the rest does.
    """

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        chain: SyncChain = cast(
            "SyncChain", async_to_sync(cast("Any", get_response)) if self.is_async else get_response
        )
        self.views: list[Callable[..., HttpResponseBase | None]] = []
        for dotted_path in reversed(settings.CONSOLE_MIDDLEWARE):
            chain = import_string(dotted_path)(chain)
            if hasattr(chain, "process_view"):
                self.views.insert(0, chain.process_view)
        self.chain = chain
        if self.is_async:
            self.threaded = sync_to_async(self._serve, thread_sensitive=True)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if not is_console(request.path):
            return self.get_response(request)
        # A page under a stranger's host name is how browsers are lured into using their cookies (DNS rebinding).
        request.get_host()
        return self.threaded(request) if self.is_async else self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        response = self.chain(request)
        if isinstance(response, FileResponse):
            # Static files are small; on the event loop a file that is read piece by piece would block it.
            whole = HttpResponse(response.getvalue(), status=response.status_code)
            whole.headers = response.headers
            response.close()
            return whole
        return response

    async def process_view(
        self, request: HttpRequest, view: Callable[..., object], args: list[object], kwargs: dict[str, object]
    ) -> HttpResponseBase | None:
        """Let the inner middleware look at the view that was found, as Django would."""
        if is_console(request.path):
            for look in self.views:
                response = await sync_to_async(look, thread_sensitive=True)(request, view, args, kwargs)
                if response is not None:
                    return response
        return None


def error_answer(
    error: GatehouseError, *, status: int | None = None, request: HttpRequest | None = None
) -> JsonResponse:
    """Return the JSON answer of an error, for callers that are not inside the REST framework.

    With the request of a path that speaks problem documents it is one.
    """
    status = status or error.status
    if request is not None and problems.speaks_problems(request.path):
        problem = problems.as_problem(error, status=status, request_id=request.META.get("gatehouse.request_id", ""))
        return JsonResponse(problem, status=status, headers=error.headers(), content_type=problems.MEDIA_TYPE)
    return JsonResponse(error.as_body() | {"code": status}, status=status, headers=error.headers())
