"""Looks for placeholders of secrets where they don't belong: whoever sends one elsewhere wanted to send the secret."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from corekit.needles import Needles
from corekit.netrules.reasons import Reason
from sandboxes.egress.events import Fact
from sandboxes.egress.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Collection

    from corekit.needles import Scanner
    from corekit.netrules.policy import Policy
    from sandboxes.egress.flow import Flow

BODY_SEARCHED = 64 * 1024
"""So much of a body is searched, from its beginning."""


class Guard:
    """The placeholders of one policy, in the forms in which a request may carry them."""

    def __init__(self, policy: Policy) -> None:
        self._found = {
            one.value: Needles((one.value.encode(), one.value.lower().encode())) for one in policy.placeholders
        }
        self._secrets = {one.value: one.secret for one in policy.placeholders}

    def secret_in(self, data: bytes, own: Collection[str] = ()) -> str | None:
        """Return the name of a secret whose placeholder stands in a head, unless it is one of `own`."""
        # As it is; as a name, in which case means nothing; and as a URL, in which any letter may be escaped.
        forms = (data, data.lower(), unquote_to_bytes(data))
        for value, needles in self._found.items():
            if value not in own and any(needles.found_in(form) for form in forms):
                return self._secrets[value]
        return None

    def others(self, own: Collection[str]) -> dict[str, Needles]:
        """Return by secret what is searched for: all but `own`."""
        return {self._secrets[value]: needles for value, needles in self._found.items() if value not in own}


class BodyWatch:
    """Searches the beginning of one body. A placeholder is found wherever the pieces are cut, and does not go on."""

    def __init__(self, flow: Flow, others: dict[str, Needles]) -> None:
        self._flow = flow
        self._scanners: dict[str, Scanner] = {secret: needles.stream() for secret, needles in others.items()}
        self._left = BODY_SEARCHED

    def pass_on(self, piece: bytes) -> bytes:
        """Return what of the body may go on now. Raises Refused."""
        if self._left <= 0:
            return piece
        self._left -= len(piece)
        for secret, scanner in self._scanners.items():
            piece = scanner.feed(piece)
            if scanner.hits:
                raise elsewhere(self._flow, secret, "body")
        return piece + self.finish() if self._left <= 0 else piece

    def finish(self) -> bytes:
        """Return what was held back, once nothing follows that could complete it."""
        rest = b""
        for secret, scanner in self._scanners.items():
            rest = scanner.feed(rest) + scanner.finish()
            if scanner.hits:
                raise elsewhere(self._flow, secret, "body")
        return rest


def forbid(flow: Flow, data: bytes, own: Collection[str] = ()) -> None:
    """Raise Refused, and record the attempt, where a placeholder stands in the data that is none of `own`."""
    secret = flow.sandbox.guard.secret_in(data, own) if flow.sandbox.guard is not None else None
    if secret is not None:
        raise elsewhere(flow, secret, "head")


def elsewhere(flow: Flow, secret: str, where: str) -> Refused:
    """Record that a secret's placeholder was sent elsewhere, and return the refusal of that."""
    sandbox, asked = flow.sandbox, flow.asked
    flow.services.outbox.refuse(
        Fact(
            sandbox=sandbox.id,
            generation=sandbox.generation,
            code="secret.exfil_attempt",
            decision="deny",
            reason=Reason.SECRET_ELSEWHERE,
            outcome="refused",
            details={
                "host": None if asked is None else asked.name,
                "port": None if asked is None else asked.port,
                "secret_name": secret,
                "place": where,
                "method": flow.method,
                "via": flow.via,
                "policy_version": sandbox.policy.version,
            },
        )
    )
    return Refused(Reason.SECRET_ELSEWHERE, detail=f"It stands for {secret}, in the {where} of a request.")
