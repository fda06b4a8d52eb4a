"""Reads for the REST API: sandboxes and executions in any state, templates and nodes, each behind the one door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.db.models import Q, QuerySet

from corekit import ids
from corekit.errors import NotFound
from sandboxes import access
from sandboxes.models import Execution, Node, Sandbox, Template, metadata_digest
from sandboxes.selectors import no_sandbox
from tenants import policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from corekit.actor import Actor

LIVE, ANY = "live", "any"
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class SandboxQuery:
    """Which sandboxes to list. `state` may also be `live`, all that have not ended, or `any`."""

    state: str = LIVE
    template: str | None = None
    tier: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    started_since: datetime | None = None
    started_before: datetime | None = None
    tenant_id: UUID | None = None


def sandboxes_for(actor: Actor, query: SandboxQuery) -> QuerySet[Sandbox]:
    """Return the sandboxes that an actor may see and asks for."""
    policy.require(actor, "sandboxes:read")
    rows = Sandbox.visible_to(actor)
    if query.state == LIVE:
        # The words of the index that keeps live rows in a list's order.
        rows = rows.filter(ended_at=None)
    elif query.state != ANY:
        rows = rows.filter(state=query.state)
    for key, value in query.metadata.items():
        rows = rows.filter(metadata_terms__contains=metadata_digest(key, value))
    if query.template is not None:
        rows = rows.filter(Q(template_id=query.template) | Q(template_name=query.template))
    exact = {
        "tier": query.tier,
        "tenant_id": query.tenant_id,
        "started_at__gte": query.started_since,
        "started_at__lt": query.started_before,
    }
    return rows.filter(**{name: value for name, value in exact.items() if value is not None})


def sandbox_for(actor: Actor, sandbox_id: str) -> Sandbox:
    """Return a sandbox in any state, ended ones too. Raises NotFound."""
    policy.require(actor, "sandboxes:read")
    found = None
    if ids.is_sandbox_id(sandbox_id):
        found = Sandbox.visible_to(actor).filter(pk=sandbox_id).first()
    if found is None:
        raise no_sandbox()
    return found


def executions_for(actor: Actor, *, state: str | None = None, tenant_id: UUID | None = None) -> QuerySet[Execution]:
    """Return the executions that an actor may see and asks for, without what they wrote."""
    policy.require(actor, "sandboxes:read")
    rows = Execution.visible_to(actor).defer("stdout", "stderr")
    exact = {"state": state, "tenant_id": tenant_id}
    return rows.filter(**{name: value for name, value in exact.items() if value is not None})


def execution_for(actor: Actor, execution_id: str) -> Execution:
    """Return an execution. What it wrote is only for who may look into sandboxes. Raises NotFound."""
    policy.require(actor, "sandboxes:read")
    found = None
    if ids.is_event_id(execution_id):
        found = Execution.visible_to(actor).filter(pk=execution_id).first()
    if found is None:
        raise NotFound("There is no such execution.")
    if not access.may_execute(actor):
        found.output_until = None
    return found


def templates_for(actor: Actor) -> QuerySet[Template]:
    """Return the public templates and those of the actor's tenant; all to operators."""
    policy.require(actor, "templates:read")
    if actor.tenant_id is None and actor.has(policy.EVERYTHING):
        return Template.objects.all()
    return Template.visible_to(actor)


def template_for(actor: Actor, template_id: str) -> Template:
    """Return one template by its id. Raises NotFound."""
    found = templates_for(actor).filter(pk=template_id).first() if _is_plain(template_id) else None
    if found is None:
        raise NotFound("There is no such template.")
    return found


def nodes_for(actor: Actor) -> QuerySet[Node]:
    """Return all nodes, to operators only."""
    policy.require(actor, "platform:write")
    return Node.objects.all()


def node_for(actor: Actor, node_id: str) -> Node:
    """Return one node. Raises NotFound."""
    found = nodes_for(actor).filter(pk=node_id).first() if _is_plain(node_id) else None
    if found is None:
        raise NotFound("There is no such node.")
    return found


def _is_plain(text: str) -> bool:
    return text.isprintable() and len(text) <= _LONGEST_ID
