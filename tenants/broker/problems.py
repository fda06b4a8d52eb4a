"""Why the broker gives an answer of its own instead of a service's. None of it repeats a word of the service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from corekit.errors import Conflict, GatehouseError, MethodNotAllowed, RateLimited, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


class UpstreamRefused(GatehouseError):
    """The service does not take the secret. What it says about that often quotes a part of it."""

    code = "upstream_refused"
    status = 502
    title = "The service refused the secret that this token stands for"
    default_should_retry = False


class RedirectBlocked(GatehouseError):
    """The service sends the caller elsewhere, where the secret must not go."""

    code = "redirect_blocked"
    status = 502
    title = "The service answered with a redirect, which is never followed"
    default_should_retry = False


class SecretReflected(GatehouseError):
    """The service's answer holds the secret."""

    code = "secret_reflected"
    status = 502
    title = "The service's answer held the secret and was withheld"
    default_should_retry = False


class UnreadableAnswer(GatehouseError):
    """The answer is not HTTP, or is compressed although nobody asked for that, so that it can't be looked through."""

    code = "unreadable_answer"
    status = 502
    title = "The service's answer can't be read"
    default_should_retry = False


class UpstreamFailed(GatehouseError):
    """The service closed the connection before it answered."""

    code = "upstream_failed"
    status = 502
    title = "The service closed the connection without an answer"


class UpstreamSlow(GatehouseError):
    """The service did not answer in time."""

    code = "upstream_timeout"
    status = 504
    title = "The service did not answer in time"


class SecretUnusable(Conflict):
    """The secret's value can't travel in the service's slot."""

    code = "secret_unusable"
    title = "The secret's value can't be sent to this service"
    default_should_retry = False


class TooManyStreams(RateLimited):
    """The sandbox has as many calls under way as one may have."""

    code = "too_many_streams"
    title = "This sandbox has too many calls under way"


class Stopped(Unavailable):
    """The call was broken off: its token was revoked, or it took too long."""

    code = "stopped"
    title = "The call was broken off"
    default_should_retry = False


class BadMethod(MethodNotAllowed):
    """The broker passes on calls that have a meaning of their own, no others."""

    title = "The broker does not pass on this method"
    default_should_retry = False


def as_body(error: GatehouseError, request_id: str) -> bytes:
    """Return the JSON answer, in a form whose message the vendors' own clients show."""
    inner = {"type": error.code, "code": error.code, "message": error.message, "request_id": request_id}
    return json.dumps({"type": "error", "error": inner}).encode()


def headers(error: GatehouseError) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers that say whether, and when, to try again; the vendors' clients read one of their own."""
    for name, value in error.headers().items():
        yield name.lower().encode(), value.encode()
        if name == "Should-Retry":
            yield b"x-should-retry", value.encode()
