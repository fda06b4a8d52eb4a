"""How a sandbox is told no: a status, the fixed reason, and what to ask for. Never an address that it did not name."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from corekit.netrules.reasons import Reason

if TYPE_CHECKING:
    from corekit.netrules.decide import Verdict

_STATUS = {
    Reason.BAD_HOST: 400,
    Reason.SMUGGLING: 400,
    Reason.NOT_HTTP: 400,
    Reason.LIMIT: 429,
    Reason.RESOLVE_FAILED: 502,
    Reason.CONNECT_FAILED: 502,
    Reason.TLS_FAILED: 502,
    Reason.EVENTS_FULL: 503,
    Reason.SECRETS_UNAVAILABLE: 503,
    Reason.ANSWER_CODED: 502,
    Reason.SECRET_REFLECTED: 502,
}
_ASKABLE = frozenset({Reason.NO_RULE, Reason.PORT, Reason.LITERAL_IP})


class Refused(Exception):
    """What ends a request or a flow, by one of the fixed reason codes; `detail` is a sentence more about this one."""

    def __init__(
        self,
        reason: Reason,
        *,
        status: int | None = None,
        rule: str | None = None,
        layer: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status or _STATUS.get(reason, 403)
        self.rule = rule
        self.layer = layer
        self.detail = detail


def refusal_of(verdict: Verdict) -> Refused:
    """Return what a verdict that does not allow is answered with."""
    return Refused(verdict.reason or Reason.NO_RULE, rule=verdict.rule, layer=verdict.layer)


def answer(refusal: Refused, entry: str | None, *, keep: bool = False) -> bytes:
    """Return the whole HTTP answer. Its status line carries the reason: clients show it, and hide the body."""
    asked = entry if refusal.reason in _ASKABLE else None
    message = " ".join(part for part in (refusal.reason.sentence, refusal.detail) if part)
    hint = f"network policy: {refusal.reason}"
    if asked is not None:
        message += f' To allow it, add "{asked}" to the sandbox\'s network policy.'
        hint += f", add {asked}"
    body = json.dumps({"reason": refusal.reason, "message": message}).encode() + b"\n"
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase} ({hint})\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Gatehouse-Reason: {refusal.reason}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode("ascii") + body
