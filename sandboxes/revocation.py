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

OVERLAP = timedelta(seconds=60)
"""Longer than any create or connect takes: a grant that crossed with its key's revocation has arrived by then."""


def revoke_at_node(key_id: str) -> None:
    """Refuse a key's tokens on every sandbox, now. When the node is away, `repeat_recent` does it later."""
    try:
        local_node().revoke_key(key_id)
    except GatehouseError as error:
        logger.warning("revocation_delayed", key_id=key_id, error=error.code)


def repeat_recent(client: NodeClient) -> int:
    """Tell the node again about every key that was revoked since it last heard, or a moment before.

    So a revocation holds within a second although web may die before it told the node, the node may be away,
    and a create that read the key before may grant it afterwards. Returns how many keys it were.
    """
    node = Node.objects.order_by("-last_seen_at").first()
    if node is None:
        return 0
    began = clock.now()
    recent = ApiKey.everywhere().filter(revoked_at__gte=node.revocations_upto - OVERLAP).order_by("pk")
    keys = list(recent.values_list("pk", flat=True))
    for key_id in keys:
        client.revoke_key(key_id)
    if keys or began - node.revocations_upto > OVERLAP:
        Node.objects.filter(pk=node.pk, revocations_upto__lt=began).update(revocations_upto=began)
    return len(keys)
