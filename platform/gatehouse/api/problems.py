"""Errors of `/api/v1` as problem documents (RFC 9457)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.response import Response
from rest_framework.views import set_rollback

from corekit import errors
from gatehouse.api import exceptions

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:gatehouse:problem:"
PREFIX = "/api/"


def speaks_problems(path: str) -> bool:
    """Say whether errors under a path are problem documents; all others have the form of the E2B control plane."""
    return path.startswith(PREFIX)


def as_problem(error: errors.GatehouseError, *, status: int | None = None, request_id: str = "") -> dict[str, object]:
    """Return the document of an error.

    `type` and `code` are stable, `detail` is for people, `field` names the input at fault, `details` holds what a
    program can use, `retry_after` is in seconds, `request_id` finds the log lines.
    """
    problem: dict[str, object] = {
        "type": f"{TYPE_PREFIX}{error.code}",
        "title": error.title,
        "status": status or error.status,
        "detail": error.message,
        "code": error.code,
    }
    for name, value in (("field", error.field), ("retry_after", error.retry_after), ("details", error.details)):
        if value not in (None, {}):
            problem[name] = value
    if request_id:
        problem["request_id"] = request_id
    return problem


def handle(exc: Exception, context: Mapping[str, Any]) -> Response:
    """Answer every exception of a view: ours with what they say, all others as 500 without a word on why."""
    set_rollback()
    view, request = context.get("view"), context.get("request")
    error = exceptions.translate(exc)
    if error is None:
        exceptions.log_unhandled(exc, view)
        error = errors.GatehouseError()
    request_id = request.META.get("gatehouse.request_id", "") if request is not None else ""
    response = Response(
        as_problem(error, request_id=request_id), status=error.status, headers=error.headers(), content_type=MEDIA_TYPE
    )
    if isinstance(error, errors.MethodNotAllowed) and view is not None:
        response["Allow"] = ", ".join(view.allowed_methods)
    return response
