"""What a client and the record are told when a relay to a sandbox fails before its answer began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekit.logs import logger
from sandboxes.gateway import errors, http1, tap, upstream
from sandboxes.gateway.exchange import ClientSilent
from sandboxes.gateway.reply import ClientGone
from sandboxes.gateway.resume import NotResumed
from sandboxes.gateway.routes import AccessRevoked, SandboxGone, SandboxPaused

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxes.gateway.reply import Reply


def cause(error: BaseException) -> str:
    """Return the reason that a result event gives."""
    match error:
        case SandboxPaused():
            return "sandbox_paused"
        case SandboxGone() | upstream.ConnectFailed():
            return "sandbox_gone"
        case AccessRevoked():
            return "access_revoked"
        case tap.TapAway() | tap.TapRefused():
            return "not_recorded"
        case ClientGone() | ClientSilent():
            return "client_left"
        case upstream.UpstreamError():
            return "guest_cut_off"
        case http1.BadAnswer():
            return "guest_answer_malformed"
    return "refused"


def answer(request: web.BaseRequest, sandbox_id: str, port: int, error: Exception) -> Reply:
    """Answer for a fault of the way to a sandbox; what nobody foresaw is logged and answered with 500."""
    match error:
        case tap.TapAway():
            return errors.sandbox_error(request, sandbox_id, 503, errors.AUDIT_AWAY, retry_after=1)
        case tap.TapRefused(code="spool_full"):
            return errors.sandbox_error(request, sandbox_id, 429, errors.AUDIT_FULL, retry_after=1)
        case tap.TapRefused(code="unknown_sandbox") | SandboxGone() | upstream.ConnectFailed():
            return errors.not_found(request, sandbox_id)
        case NotResumed():
            return _not_resumed(request, sandbox_id, error)
        case AccessRevoked():
            return errors.json_error(request, 401, errors.UNAUTHORIZED)
        case ClientSilent():
            return errors.json_error(request, 408, errors.BODY_SILENT)
        case ClientGone():
            return errors.closed(request)
        case http1.BadAnswer():
            return errors.sandbox_error(request, sandbox_id, 502, errors.BAD_ANSWER, port=port)
        case upstream.UpstreamError():
            return errors.port_closed(request, sandbox_id, port)
    logger.error("relay_failed", exc_info=error, sandbox_id=sandbox_id, port=port)
    return errors.json_error(request, 500, errors.GATEWAY_FAILED)


def _not_resumed(request: web.BaseRequest, sandbox_id: str, error: NotResumed) -> Reply:
    match error.status:
        case 404:
            return errors.not_found(request, sandbox_id)
        case 403:
            return errors.resume_refused(request, sandbox_id)
        case 409:
            return errors.sandbox_error(request, sandbox_id, 409, errors.TRANSITIONING, retry_after=1)
        case 429:
            message = str(error) or errors.RESUME_LIMITED
            return errors.sandbox_error(request, sandbox_id, 429, message, retry_after=error.retry_after)
    return errors.sandbox_error(request, sandbox_id, 503, errors.WEB_AWAY, retry_after=error.retry_after)
