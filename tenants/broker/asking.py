"""Who asks the broker, for what, and how it is refused: always the same words, whatever the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from corekit.errors import GatehouseError

if TYPE_CHECKING:
    from typing import ClassVar


class Reason(StrEnum):
    """Why a token was refused. Only the ledger says it; who asked hears one answer for most of them."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    OTHER_SANDBOX = "other_sandbox"
    OTHER_GENERATION = "other_generation"
    REVOKED = "revoked"
    SANDBOX_ENDED = "sandbox_ended"
    VOIDED = "voided"
    KEY_REVOKED = "key_revoked"
    TENANT_SUSPENDED = "tenant_suspended"
    NOT_YET = "not_yet"
    EXPIRED = "expired"
    USED_UP = "used_up"
    SERVICE = "service"
    METHOD = "method"
    PATH = "path"
    CONTENT_TYPE = "content_type"
    TOO_LARGE = "too_large"
    BODY_RULE = "body_rule"
    RATE = "rate"
    BUDGET = "budget"
    SECRET_MISSING = "secret_missing"  # noqa: S105  (a reason)
    VAULT_UNAVAILABLE = "vault_unavailable"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"


class Refused(GatehouseError):
    """The token does not do here. `reason` is for our own eyes and stands in no answer."""

    code = "token_refused"
    status: ClassVar[int] = 401
    title = "This token is not valid for this request."
    default_should_retry: ClassVar[bool | None] = False

    def __init__(self, reason: Reason, *, retry_after: int | None = None) -> None:
        super().__init__(retry_after=retry_after)
        self.reason = reason


class Exhausted(Refused):
    """Its rate is used up, or its sandbox was refused too often."""

    code = "token_exhausted"
    status = 429
    title = "This token allows no more requests for now."
    default_should_retry: ClassVar[bool | None] = None


class Spent(Exhausted):
    """Its budget is used up: to wait does not help."""

    title = "The budget of this token is used up."
    default_should_retry = False


class Away(Refused):
    """It would do, but the service does not answer; nothing was used of it."""

    code = "upstream_unavailable"
    status = 503
    title = "The service can't be reached at the moment."
    default_should_retry = None
    default_retry_after: ClassVar[int | None] = 1


class VaultAway(Away):
    """It would do, but the vault with its secret does not answer; nothing was used of it."""

    code = "vault_unavailable"
    title = "The vault that keeps the secret is not available at the moment."


_ANSWERS = {
    Reason.RATE: Exhausted,
    Reason.BUDGET: Spent,
    Reason.VAULT_UNAVAILABLE: VaultAway,
    Reason.UPSTREAM_UNAVAILABLE: Away,
}


def refusal(reason: Reason, *, retry_after: int | None = None) -> Refused:
    """Return the answer to somebody who is refused."""
    return _ANSWERS.get(reason, Refused)(reason, retry_after=retry_after)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the egress process knows it (never as the request says): a generation of a sandbox, or a run."""

    sandbox_id: str = ""
    generation: int = 0
    run: str = ""

    @property
    def name(self) -> str:
        """Return what the ledger calls it."""
        return self.sandbox_id or self.run


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for. `segments` are those of the path behind the service's name, as they came on the wire.

    `body_length` None is a body whose length nobody knows before its end.
    """

    service: str
    method: str
    segments: tuple[str, ...]
    content_type: str = ""
    body_length: int | None = 0

    @property
    def path(self) -> str:
        """Return the path as one text."""
        return "/" + "/".join(self.segments)
