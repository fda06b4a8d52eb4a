"""The paths that belong to no app: health and the answers of last resort."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from django.http import HttpRequest, JsonResponse

from corekit.web.pages import refusal
from gatehouse.api.exceptions import error_for_status, translate
from gatehouse.middleware import error_answer, is_console

if TYPE_CHECKING:
    from django.http import HttpResponse

    from corekit.errors import GatehouseError


async def health(request: HttpRequest) -> JsonResponse:
    """Say that web runs. Needs no key and no database, so that a busy database restarts nothing."""
    return JsonResponse({"status": "ok"})


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400 for what Django itself refuses, such as an unknown host name."""
    return _answer(request, translate(exception) or error_for_status(400))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403."""
    return _answer(request, error_for_status(403))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404 for a path that nothing serves."""
    return _answer(request, error_for_status(404, request.path))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500, or 503 while a part is away that middleware needs; the log has the reason."""
    cause = sys.exception()
    error = translate(cause) if isinstance(cause, Exception) else None
    return _answer(request, error or error_for_status(500))


def _answer(request: HttpRequest, error: GatehouseError) -> HttpResponse:
    if not is_console(request.path):
        return error_answer(error, request=request)
    # What the layout of a page asks for may be what failed.
    return refusal(request, error, bare=error.status >= 500)
