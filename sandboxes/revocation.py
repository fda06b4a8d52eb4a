"""A revoked API key and a suspended tenant are dead on every sandbox too."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from django.db.models import Q

from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import GatehouseError
from sandboxes import access, networks, pausing
from sandboxes.errors import StateDiffers, UnknownAtNode
from sandboxes.models import Node, Sandbox
from sandboxes.node_client import local_node
from sandboxes.states import LIVE, SandboxState
from tenants.models import ApiKey, Tenant
from tenants.states import TenantState

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from sandboxes.node_client import NodeClient

logger = structlog.get_logger("sandboxes.revocation")

_SUSPENDED = Q(state=TenantState.SUSPENDED)
OVERLAP = timedelta(seconds=60)
"""Longer than any create or connect takes: a grant that crossed with its key's revocation has arrived by then."""


def revoke_at_node(key_id: str) -> None:
    """Refuse a key's tokens on every sandbox, now. When the node is away, `repeat_recent` does it later."""
    try:
        local_node().revoke_key(key_id)
    except GatehouseError as error:
        logger.warning("revocation_delayed", key_id=key_id, error=error.code)


def follow_tenant(tenant_id: str) -> None:
    """Bring a tenant's sandboxes to its state, now. When the node is away, `repeat_recent` does it later."""
    try:
        _follow(local_node(), Tenant.objects.get(pk=tenant_id))
    except GatehouseError as error:
        logger.warning("tenant_followed_later", tenant_id=tenant_id, error=error.code)


def _follow(client: NodeClient, tenant: Tenant) -> None:
    if tenant.state == TenantState.SUSPENDED:
        _shut(client, tenant)
    else:
        _open(client, tenant)


def _shut(client: NodeClient, tenant: Tenant) -> None:
    """Withdraw every grant, then pause what runs: its streams and its ports are closed, and its data stays."""
    for key_id in _keys(tenant).values_list("pk", flat=True):
        client.revoke_key(key_id)
    for sandbox in Sandbox.everywhere().filter(tenant=tenant, state=SandboxState.RUNNING).order_by("pk"):
        try:
            if pausing.begin_pause(SYSTEM, sandbox, reason="tenant_suspended"):
                pausing.finish_pause(client, sandbox)
        except GatehouseError as error:
            # The others' turn comes all the same, and this one's again.
            logger.warning("not_paused", sandbox_id=sandbox.pk, error=error.code)


def _open(client: NodeClient, tenant: Tenant) -> None:
    """Give back the grants to every key that may connect anyway: tokens that were handed out count again."""
    keys = [key.pk for key in _keys(tenant) if access.EXECUTE in key.scopes]
    live = Sandbox.everywhere().filter(tenant=tenant, state__in=LIVE).exclude(state=SandboxState.ENDING)
    for sandbox_id, generation in live.values_list("pk", "generation"):
        for key_id in keys:
            try:
                client.grant(sandbox_id, generation, key_id, access.key_expiry(key_id))
            except (UnknownAtNode, StateDiffers):
                break


def _keys(tenant: Tenant) -> QuerySet[ApiKey]:
    return ApiKey.everywhere().filter(tenant=tenant, revoked_at=None).order_by("pk")


def repeat_recent(client: NodeClient) -> int:
    """Tell the node again about every key and tenant that lost its right since it last heard, or a moment before.

    So this holds within a second although web may die before it told the node, the node may be away, and a
    create that read the key before may grant it afterwards. Who got a right back is told once. Returns how many
    keys and tenants it were.
    """
    node = Node.objects.order_by("-last_seen_at").first()
    if node is None:
        return 0
    began = clock.now()
    since = node.revocations_upto - OVERLAP
    recent = ApiKey.everywhere().filter(revoked_at__gte=since).order_by("pk")
    keys = list(recent.values_list("pk", flat=True))
    for key_id in keys:
        client.revoke_key(key_id)
    tenants = list(Tenant.objects.filter(_SUSPENDED, state_changed_at__gte=since))
    tenants += Tenant.objects.filter(~_SUSPENDED, state_changed_at__gte=node.revocations_upto)
    for tenant in tenants:
        if tenant.state != TenantState.SUSPENDED:
            networks.follow_tenant(tenant.pk.hex)
        _follow(client, tenant)
    if keys or tenants or began - node.revocations_upto > OVERLAP:
        Node.objects.filter(pk=node.pk, revocations_upto__lt=began).update(revocations_upto=began)
    return len(keys) + len(tenants)
