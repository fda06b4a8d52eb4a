"""Refusals that only sandboxes know. The general ones are in `corekit.errors`."""

from __future__ import annotations

from corekit.errors import Conflict, NotFound, StartFailed, Unavailable


class NodeUnavailable(Unavailable):
    """The node did not take the call: nothing happened there."""

    code = "node_unavailable"
    title = "The node is not reachable at the moment; try again shortly"


class NodeSilent(NodeUnavailable):
    """The node took the call and never answered: whether it acted is unknown."""

    code = "node_silent"
    title = "The node did not answer in time; try again shortly"


class NoRoom(Unavailable):
    """The host has no room for the sandbox, whatever the tenant's quota says."""

    code = "sandbox_capacity_unavailable"
    title = "The host has no room for this sandbox at the moment"


class NodeRefused(StartFailed):
    """The node answered with an error that no caller can mend."""

    code = "node_error"
    title = "The node could not do this"


class UnknownAtNode(NotFound):
    """The node does not know the sandbox (any more)."""

    code = "unknown_at_node"
    title = "The node does not know this sandbox"


class StateDiffers(Conflict):
    """The sandbox is not in the state at the node that its row names: the node acted on its own meanwhile."""

    code = "state_differs"
    title = "The sandbox changed a moment ago; try again"


class BuildMissing(StartFailed):
    """The template's build is not on the node."""

    code = "template_build_missing"
    title = "The template's build is not on the node; run the bootstrap again"


class IdempotencyMismatch(Conflict):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_request_mismatch"
    title = "This Idempotency-Key was used before with another request"


class IdempotencyInProgress(Conflict):
    """The first request with this Idempotency-Key is still running."""

    code = "idempotency_in_progress"
    title = "The first request with this Idempotency-Key is still running"


class NetworkFixed(Conflict):
    """The sandbox was made without a network, for its whole life."""

    code = "network_fixed"
    title = "This sandbox has no network, and can't get one"


class EgressUnavailable(Unavailable):
    """The node's way out is away: nobody would obey a policy. A change is written down, and told to it later."""

    code = "egress_unavailable"
    title = "The node's way out is not available at the moment"
    default_retry_after = 2
