"""What the node answers when it refuses: a code for programs, a sentence for people."""

from __future__ import annotations

from typing import Any


class NodeError(Exception):
    """A refusal with a stable `code` and the HTTP `status` of the internal API."""

    code = "internal"
    status = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def as_body(self) -> dict[str, Any]:
        """Return the JSON answer."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


class BadRequest(NodeError):
    """The request breaks the internal API's contract; `details.field` names where."""

    code = "bad_request"
    status = 400


class TooLarge(NodeError):
    """The request's body is larger than the internal API takes."""

    code = "too_large"
    status = 413


class UnknownSandbox(NodeError):
    """No such sandbox here, and its end has already been reported."""

    code = "unknown_sandbox"
    status = 404


class UnknownBuild(NodeError):
    """The template build is not in this node's store."""

    code = "build_unknown"
    status = 404


class GenerationConflict(NodeError):
    """The id is taken by another generation or another request."""

    code = "generation_conflict"
    status = 409


class TierUnavailable(NodeError):
    """This host can't give the isolation tier; the details say why and what to do."""

    code = "tier_unavailable"
    status = 409


class NoRoom(NodeError):
    """The host's own ceiling would be passed; the details name the resource, what is needed and what is free."""

    code = "no_room"
    status = 503


class StartFailed(NodeError):
    """The sandbox did not come up; nothing of it is left behind."""

    code = "start_failed"
    status = 500


class Quarantined(StartFailed):
    """The sandbox came up, but not as its tier and profile promise; it was killed before anybody got it."""

    def __init__(self, mismatches: list[str]) -> None:
        super().__init__(f"The sandbox is not what its tier promises: {'; '.join(mismatches)}.", reason="quarantined")
        self.mismatches = mismatches


class Ending(NodeError):
    """The sandbox ends at this moment; its end is not taken back."""

    code = "ending"
    status = 409


class Paused(NodeError):
    """The sandbox is paused: no deadline runs that could be set."""

    code = "paused"
    status = 409


class NotFrozen(NodeError):
    """The sandbox's processes did not stand still, or not go on, in time. It may be tried again."""

    code = "not_frozen"
    status = 503


class NetworkFixed(NodeError):
    """The sandbox was started without a way out; none can be added."""

    code = "network_fixed"
    status = 409


class EgressUnavailable(NodeError):
    """Nobody obeys network policies at the moment, so that nothing may pass. It may be tried again."""

    code = "egress_unavailable"
    status = 503


class SpoolFull(NodeError):
    """The sandbox has used up its share of unreported events."""

    code = "spool_full"
    status = 429
