"""Errors that callers may see: a stable code, an HTTP status, data and one human sentence.

Everything that Gatehouse refuses on purpose is a `GatehouseError`. One handler turns it into JSON; nobody
else formats errors.
"""

from __future__ import annotations

from typing import ClassVar


class GatehouseError(Exception):
    """A refusal that the caller may read.

    `message` is one sentence without secrets. `field` names the input at fault. `retry_after` is in whole
    seconds. `should_retry` None leaves the decision to the status; False tells clients that waiting does
    not help. Every other keyword becomes `details`, and must be JSON.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"
    default_should_retry: ClassVar[bool | None] = None
    default_retry_after: ClassVar[int | None] = None

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        should_retry: bool | None = None,
        **details: object,
    ) -> None:
        self.message = message or self.title
        super().__init__(self.message)
        self.field = field
        self.retry_after = self.default_retry_after if retry_after is None else retry_after
        self.should_retry = self.default_should_retry if should_retry is None else should_retry
        self.details = details

    def as_body(self) -> dict[str, object]:
        """Return the JSON answer. `code` repeats the HTTP status because the E2B clients branch on it."""
        body: dict[str, object] = {"code": self.status, "message": self.message, "error_code": self.code}
        if self.field is not None:
            body["field"] = self.field
        if self.details:
            body["details"] = self.details
        return body

    def headers(self) -> dict[str, str]:
        """Return the answer's extra headers: when, and whether, a client should come back."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.should_retry is not None:
            headers["Should-Retry"] = "true" if self.should_retry else "false"
        return headers


class InvalidInput(GatehouseError):
    """The request is malformed or out of range; `field` says where."""

    code = "invalid_input"
    status = 400
    title = "The request is not valid"


class Unauthorized(GatehouseError):
    """The credentials are missing, unknown, expired or revoked."""

    code = "unauthorized"
    status = 401
    title = "The API key is missing or not valid"


class Forbidden(GatehouseError):
    """The caller is known but may not do this."""

    code = "forbidden"
    status = 403
    title = "This key may not do that"


class NotFound(GatehouseError):
    """There is no such object, or it belongs to someone else: both answers are the same."""

    code = "not_found"
    status = 404
    title = "Not found"


class MethodNotAllowed(GatehouseError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405
    title = "This method is not allowed here"


class Conflict(GatehouseError):
    """The object is not in a state that allows this."""

    code = "conflict"
    status = 409
    title = "The current state does not allow this"


class TierUnavailable(Conflict):
    """No node can give the demanded isolation. There is never a silent downgrade."""

    code = "tier_unavailable"
    title = "No node offers this isolation tier"


class TooLarge(GatehouseError):
    """The request's body is bigger than the limit."""

    code = "too_large"
    status = 413
    title = "The request is too large"


class UnsupportedMedia(GatehouseError):
    """The request's content type is not one that this path reads."""

    code = "unsupported_media_type"
    status = 415
    title = "Send JSON with Content-Type: application/json"


class QuotaExceeded(GatehouseError):
    """The tenant's quota has no room. Waiting alone does not help, so clients are told not to retry."""

    code = "quota_exceeded"
    status = 429
    title = "The quota is used up"
    default_should_retry = False


class RateLimited(GatehouseError):
    """Too many calls; `retry_after` says when the next one is allowed."""

    code = "rate_limited"
    status = 429
    title = "Too many requests"
    default_retry_after = 1


class NotYetAvailable(GatehouseError):
    """The protocol has this call, this version of Gatehouse does not."""

    code = "not_implemented"
    status = 501
    title = "This version does not offer that yet"
    default_should_retry = False


class Unavailable(GatehouseError):
    """A part that is needed for the answer is away for the moment."""

    code = "unavailable"
    status = 503
    title = "The service is not available at the moment"
    default_retry_after = 1


class StartFailed(GatehouseError):
    """A sandbox did not start; nothing of it is left behind."""

    code = "sandbox_create_failed"
    status = 500
    title = "The sandbox did not start"
