"""Searches an answer for the secret that its request carried: a server that echoes it may not tell the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11

from corekit.netrules.reasons import Reason
from sandboxes.egress.events import Fact
from sandboxes.egress.refusals import Refused

if TYPE_CHECKING:
    from corekit.needles import Needles
    from sandboxes.egress.flow import Flow
    from sandboxes.egress.head import Headers


class AnswerWatch:
    """One answer, head and body."""

    def __init__(self, flow: Flow, needles: Needles) -> None:
        self._flow = flow
        self._needles = needles
        self._scanner = needles.stream()
        self._has_length = False
        self._told = False

    def head(self, event: h11.Response) -> h11.Response:
        """Return the head without what it may not hold. Raises Refused for a body that can't be searched."""
        coding = b",".join(value for name, value in event.headers if name == b"content-encoding").strip().lower()
        if coding not in (b"", b"identity"):
            raise Refused(Reason.ANSWER_CODED)
        self._has_length = any(name == b"content-length" for name, _ in event.headers)
        headers, reason = self.headers(event.headers.raw_items()), self.reason(event.reason)
        return h11.Response(status_code=event.status_code, headers=headers, reason=reason)

    def reason(self, said: bytes) -> bytes:
        """Return the words beside a status without what they may not hold."""
        return self._clean(bytes(said))

    def headers(self, headers: Headers) -> Headers:
        """Return headers whose values hold nothing of it; one whose name does is dropped."""
        return [(name, self._clean(value)) for name, value in headers if not self._needles.found_in(name.lower())]

    def body(self, piece: bytes) -> bytes:
        """Return what of the body may go on now. Raises Refused where a length was said that would no longer hold."""
        passed = self._scanner.feed(piece)
        if self._scanner.hits:
            self._tell()
            if self._has_length:
                raise Refused(Reason.SECRET_REFLECTED)
        return passed

    def finish(self) -> bytes:
        """Return what was held back, once nothing follows."""
        return self._scanner.finish()

    def _clean(self, value: bytes) -> bytes:
        if not self._needles.found_in(value):
            return value
        self._tell()
        return self._needles.removed_from(value)

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        flow, asked = self._flow, self._flow.asked
        flow.services.outbox.refuse(
            Fact(
                sandbox=flow.sandbox.id,
                generation=flow.sandbox.generation,
                code="secret.reflected",
                decision="deny",
                reason=Reason.SECRET_REFLECTED,
                outcome="refused",
                details={"service": None if asked is None else asked.name, "method": flow.method},
            )
        )
