"""What ties together everything that one request causes in every process: its ids, in W3C's form between them."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from corekit import ids

MAX_USER_AGENT = 200
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Trace:
    """The ids of one request. `span_id` is this process's own step, `user_agent` what the client says of itself."""

    request_id: str
    trace_id: str
    span_id: str
    user_agent: str = ""

    @property
    def traceparent(self) -> str:
        """The ids as W3C's field has them, with our own step as the parent of whatever follows."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def headers(self) -> dict[str, str]:
        """Return the fields that carry the ids to the next process."""
        return {"X-Request-Id": self.request_id, "traceparent": self.traceparent}


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(request_id: str = "", traceparent: str = "", user_agent: str = "") -> Trace:
    """Take over a request's ids as they came in, make those that are missing or malformed, and remember them."""
    trace = read(request_id, traceparent, user_agent)
    _current.set(trace)
    return trace


def read(request_id: str = "", traceparent: str = "", user_agent: str = "") -> Trace:
    """Return a request's ids with a span of our own, without remembering them."""
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if len(traceparent) <= 200 else None
    known = found is not None and found[1] != _NO_TRACE and found[2] != _NO_SPAN and traceparent[:2] != "ff"
    return Trace(
        request_id if ids.is_request_id(request_id) else ids.new_request_id(),
        found[1] if found is not None and known else secrets.token_hex(16),
        secrets.token_hex(8),
        "".join(char for char in user_agent[:MAX_USER_AGENT] if char.isprintable()),
    )


def current() -> Trace | None:
    """Return the trace of the request that is being served, or None outside one."""
    return _current.get()


def end() -> None:
    """Forget the trace."""
    _current.set(None)
