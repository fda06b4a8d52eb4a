"""A revoked API key is dead on every sandbox too."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from corekit import clock
from corekit.errors import GatehouseError
from sandboxes.models import Node
from sandboxes.node_client import local_node
from tenants.models import ApiKey

if TYPE_CHECKING:
    from sandboxes.node_client import NodeClient

logger = structlog.get_logger("sandboxes.revocation")

OVERLAP = timedelta(minutes=2)
"""Looked at again at each pass: a transaction may commit after later ones were seen."""


def revoke_at_node(key_id: str) -> None:
    """Refuse a key's tokens on every sandbox, now. When the node is away, the reconciler repeats it."""
    try:
        local_node().revoke_key(key_id)
    except GatehouseError as error:
        logger.warning("revocation_delayed", key_id=key_id, error=error.code)


def repeat_missed(client: NodeClient) -> int:
    """Tell the node about every key that was revoked since it last heard of revocations; returns how many."""
    node = Node.objects.order_by("-last_seen_at").first()
    if node is None:
        return 0
    began = clock.now()
    revoked = ApiKey.everywhere().filter(revoked_at__gte=node.revocations_upto - OVERLAP).order_by("pk")
    keys = list(revoked.values_list("pk", flat=True))
    for key_id in keys:
        client.revoke_key(key_id)
    Node.objects.filter(pk=node.pk).update(revocations_upto=began)
    return len(keys)
