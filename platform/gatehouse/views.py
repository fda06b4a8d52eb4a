"""The paths that belong to no app: health and the answers of last resort."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest, JsonResponse

from gatehouse.api.exceptions import error_for_status, translate
from gatehouse.middleware import error_answer

if TYPE_CHECKING:
    from django.http import HttpResponse


async def health(request: HttpRequest) -> JsonResponse:
    """Say that web runs. Needs no key and no database, so that a busy database restarts nothing."""
    return JsonResponse({"status": "ok"})


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400 for what Django itself refuses, such as an unknown host name."""
    return error_answer(translate(exception) or error_for_status(400), request=request)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403."""
    return error_answer(error_for_status(403), request=request)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404 for a path that nothing serves."""
    return error_answer(error_for_status(404, request.path), request=request)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500; the log has the reason."""
    return error_answer(error_for_status(500), request=request)
