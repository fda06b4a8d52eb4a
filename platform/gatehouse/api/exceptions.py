"""The one place where errors become answers."""

from __future__ import annotations

import math
import sqlite3
from typing import TYPE_CHECKING, Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions as drf
from rest_framework.response import Response
from rest_framework.views import set_rollback

from corekit import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = structlog.get_logger("gatehouse.api")

# The rest of SQLite's extended codes says more about the same failure.
_PRIMARY_CODE = 0xFF
_BY_STATUS: dict[int, type[errors.GatehouseError]] = {
    400: errors.InvalidInput,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    409: errors.Conflict,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    429: errors.RateLimited,
    501: errors.NotYetAvailable,
    503: errors.Unavailable,
}


def error_for_status(status: int, path: str = "") -> errors.GatehouseError:
    """Return the error that a bare status stands for."""
    if status == 404 and path:
        return errors.NotFound(f"There is nothing at {path[:200]}.")
    if status in _BY_STATUS:
        return _BY_STATUS[status]()
    return errors.GatehouseError() if status >= 500 else errors.InvalidInput()


def translate(exc: Exception) -> errors.GatehouseError | None:
    """Return the error of ours that an exception stands for; None for a mistake in our own code."""
    if isinstance(exc, errors.GatehouseError):
        return exc
    if isinstance(exc, Http404):
        return errors.NotFound()
    if isinstance(exc, PermissionDenied):
        return errors.Forbidden()
    if isinstance(exc, RequestDataTooBig):
        return errors.TooLarge()
    if isinstance(exc, SuspiciousOperation):
        return errors.InvalidInput()
    if isinstance(exc, OperationalError) and _passes(exc):
        # Its text names the server, which is nobody's business but the operator's.
        logger.warning("database_away", reason=str(exc))
        return errors.Unavailable("The database does not answer at the moment.")
    return _from_framework(exc) if isinstance(exc, drf.APIException) else None


def _passes(exc: OperationalError) -> bool:
    """Say whether a failure of the database is about its state, so that the same request may work later.

    SQLite calls a mistake in a statement operational, too.
    """
    code = getattr(exc.__cause__, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
    return code & _PRIMARY_CODE != sqlite3.SQLITE_ERROR


def _from_framework(exc: drf.APIException) -> errors.GatehouseError:
    if isinstance(exc, drf.ValidationError):
        field, message = first_problem(exc.detail)
        return errors.InvalidInput(message, field=field)
    if isinstance(exc, drf.NotAuthenticated | drf.AuthenticationFailed):
        return errors.Unauthorized()
    if isinstance(exc, drf.Throttled):
        wait = getattr(exc, "wait", None)
        return errors.RateLimited(retry_after=math.ceil(wait) if wait else 1)
    if isinstance(exc, drf.MethodNotAllowed):
        return errors.MethodNotAllowed(str(exc.detail))
    if isinstance(exc, drf.ParseError):
        return errors.InvalidInput(str(exc.detail))
    return error_for_status(exc.status_code)


def first_problem(detail: object, path: str = "") -> tuple[str | None, str]:
    """Return the first field at fault, as a path like `network.rules[0].host`, and what is wrong with it."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        if name == "non_field_errors":
            return first_problem(inner, path)
        return first_problem(inner, f"{path}.{name}" if path else str(name))
    if isinstance(detail, list):
        for index, inner in enumerate(detail):
            if isinstance(inner, dict | list):
                if inner:
                    return first_problem(inner, f"{path}[{index}]")
                continue
            return first_problem(inner, path)
    return path or None, (f"{path}: {detail}" if path else str(detail))


def answer(error: errors.GatehouseError) -> Response:
    """Return the framework's answer of an error."""
    return Response(error.as_body(), status=error.status, headers=error.headers())


def log_unhandled(exc: Exception, view: object) -> None:
    """Write down a mistake in our own code; the caller learns nothing of it."""
    logger.error("unhandled_exception", exc_info=exc, view=type(view).__name__)


def handle(exc: Exception, context: Mapping[str, Any]) -> Response:
    """Answer every exception of an API view: ours with what they say, all others as 500 without a word on why."""
    set_rollback()
    error = translate(exc)
    if error is None:
        log_unhandled(exc, context.get("view"))
        error = errors.GatehouseError()
    response = answer(error)
    view = context.get("view")
    if isinstance(error, errors.MethodNotAllowed) and view is not None:
        response["Allow"] = ", ".join(view.allowed_methods)
    return response
