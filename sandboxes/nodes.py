"""Which nodes there are: a node is registered when it is first heard of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.db import transaction

from audit import recording
from corekit import clock
from corekit.actor import SYSTEM
from sandboxes.models import Node

if TYPE_CHECKING:
    from sandboxes.node_client import NodeClient


def current_node(client: NodeClient) -> Node:
    """Return the node that new sandboxes go to, registering it when the database knows none.

    Raises NodeUnavailable when it has to be asked and is away.
    """
    return Node.objects.order_by("-last_seen_at").first() or register(client)


class _Known:
    """The current node's id, remembered for a moment: it changes when a host's store was wiped."""

    seconds = 2.0

    def __init__(self) -> None:
        self.node_id = ""
        self.until = float("-inf")

    def forget(self) -> None:
        """Ask the database again at the next call."""
        self.until = float("-inf")


known = _Known()


def current_node_id(client: NodeClient) -> str:
    """Return the id of the node that new sandboxes go to. Raises as `current_node`."""
    now = time.monotonic()
    if now > known.until:
        known.node_id, known.until = current_node(client).pk, now + known.seconds
    return known.node_id


def register(client: NodeClient) -> Node:
    """Ask the node who it is and what it can do, and return its row."""
    health, capabilities = client.health(), client.capabilities()
    node_id, boot_id = str(health["node_id"]), str(health["boot_id"])
    said = {"version": str(health.get("version", "")), "capabilities": capabilities}
    with transaction.atomic():
        node, is_new = Node.objects.update_or_create(
            pk=node_id,
            defaults=said | {"last_seen_at": clock.now()},
            create_defaults=said | {"boot_id": boot_id},
        )
        if is_new:
            recording.record(
                "node.registered",
                actor=SYSTEM,
                object_type="node",
                object_id=node_id,
                tenant_id=None,
                details={
                    "boot_id": boot_id,
                    "version": said["version"],
                    "capacity": capabilities.get("capacity"),
                },
            )
    return node


def heard_of(client: NodeClient, node_id: str) -> Node:
    """Return the row of a node that just answered, registering it when it is new."""
    return Node.objects.filter(pk=node_id).first() or register(client)


def mark_seen(node: Node, boot_id: str) -> None:
    """Write down that a node was heard, in which boot of its host."""
    Node.objects.filter(pk=node.pk).update(boot_id=boot_id, last_seen_at=clock.now())
