"""The parts of a create: what is wanted, the intent as a row, the node's start, and what to do when it fails.

Order: one transaction (reservation, row, audit event), then the node, then one transaction (running). Whoever
dies in between leaves a `starting` row, and the reconciler finishes it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

from audit import argument_copies, recording
from corekit import clock, tokens
from corekit.errors import GatehouseError, StartFailed, TierUnavailable
from sandboxes import access, endings, networks, statements, turns
from sandboxes.errors import BuildMissing, NodeSilent, NodeUnavailable, NoRoom
from sandboxes.models import Sandbox, metadata_digests
from sandboxes.node_client import StartSpec
from sandboxes.states import EndReason, SandboxState
from tenants import injection, quota

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corekit.actor import Actor
    from sandboxes.isolation import Isolation
    from sandboxes.models import Template
    from sandboxes.node_client import Json, NodeClient

OBJECT = "sandbox"


@dataclass(frozen=True, slots=True)
class Ingress:
    """How requests reach the sandbox's ports: for everybody or with a token, under which Host, which ones by TLS."""

    public: bool = True
    mask_host: str = ""
    https_ports: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked wish for a sandbox. `env` never reaches the database or a log."""

    tenant_id: str
    template: Template
    isolation: Isolation
    node_id: str
    resources: quota.Resources
    timeout_s: int
    metadata: Mapping[str, str]
    env: Mapping[str, str]
    auto_pause: bool
    auto_resume: bool
    ingress: Ingress
    network: networks.Plan
    idempotency_key: str | None
    request_digest: str

    def __repr__(self) -> str:
        return f"Wanted({self.template.name!r}, timeout_s={self.timeout_s})"

    def arguments(self) -> dict[str, object]:
        """Return what the audit hashes."""
        return {
            "template": self.template.pk,
            "timeout": self.timeout_s,
            "metadata": dict(self.metadata),
            "env": dict(self.env),
            "network": self.network.wish.policy or dict(self.network.wish.words),
            "rules": dict(self.network.wish.injected.rules),
        }

    def row(self, actor: Actor) -> Sandbox:
        """Return the unsaved row."""
        return Sandbox(
            tenant=self.network.tenant,
            template=self.template,
            template_name=self.template.name,
            build_id=self.template.build_id,
            node_id=self.node_id,
            tier=self.isolation.tier,
            profile=self.isolation.profile,
            runtime=self.isolation.runtime,
            cpu_milli=self.resources.cpu_milli,
            memory_mib=self.resources.memory_mib,
            disk_mib=self.resources.disk_mib,
            pids=self.template.pids,
            metadata=dict(self.metadata),
            metadata_terms=metadata_digests(self.metadata),
            network_mode=self.network.mode,
            ingress_ports=self.network.ingress_ports,
            **self.network.columns(),
            allow_public_traffic=self.ingress.public,
            mask_request_host=self.ingress.mask_host,
            https_ports=list(self.ingress.https_ports),
            auto_pause=self.auto_pause,
            auto_resume=self.auto_resume,
            timeout_s=self.timeout_s,
            created_by=actor.id,
            idempotency_key=self.idempotency_key,
            request_digest=self.request_digest,
        )


def write_intent(actor: Actor, wanted: Wanted) -> Sandbox:
    """Reserve, write the `starting` row and its audit event in one transaction, and return the row.

    Raises QuotaExceeded or RateLimited; then nothing was written.
    """
    sandbox = wanted.row(actor)
    with turns.write():
        quota.take_create_permit(wanted.tenant_id)
        quota.reserve(tenant_id=wanted.tenant_id, sandbox_id=sandbox.pk, amounts=wanted.resources.amounts())
        sandbox.save(force_insert=True)
        recording.record(
            "sandbox.created",
            actor=actor,
            object_type=OBJECT,
            object_id=sandbox.pk,
            tenant_id=actor.tenant_id,
            arguments=wanted.arguments(),
            details=_described(sandbox),
        )
    return sandbox


def _described(sandbox: Sandbox) -> dict[str, object]:
    return {
        "template": sandbox.template_name,
        "build": sandbox.build_id,
        "tier": sandbox.tier,
        "profile": sandbox.profile,
        "runtime": sandbox.runtime,
        "cpu_milli": sandbox.cpu_milli,
        "memory_mib": sandbox.memory_mib,
        "disk_mib": sandbox.disk_mib,
        "timeout_ms": sandbox.timeout_s * 1000,
        "on_timeout": on_timeout(sandbox),
        "auto_resume": sandbox.auto_resume,
        "public_traffic": sandbox.allow_public_traffic,
        "network": sandbox.network_policy or str(sandbox.network_mode),
        "node": sandbox.node_id,
        **networks.injects(sandbox),
    }


def on_timeout(sandbox: Sandbox) -> str:
    """Return what the end of a sandbox's time does: `pause` or `kill`."""
    return "pause" if sandbox.auto_pause else "kill"


def start_at_node(client: NodeClient, actor: Actor, sandbox: Sandbox, wanted: Wanted) -> Json:
    """Start the sandbox at the node and return its answer. On failure the row is ended and the error raised."""
    try:
        return client.start(_spec(actor, sandbox, wanted))
    except GatehouseError as error:
        give_up(client, actor, sandbox, error)
        raise


def _spec(actor: Actor, sandbox: Sandbox, wanted: Wanted) -> StartSpec:
    tenant, audit_key_id = wanted.tenant_id, tokens.audit_key_id(clock.now())
    return StartSpec(
        id=sandbox.pk,
        generation=sandbox.generation,
        tenant=tenant,
        build=sandbox.build_id,
        tier=sandbox.tier,
        profile=sandbox.profile,
        resources={
            "cpu_milli": sandbox.cpu_milli,
            "memory_mib": sandbox.memory_mib,
            "disk_mib": sandbox.disk_mib,
            "pids": sandbox.pids,
        },
        # What the user says of a proxy goes before what the policy says.
        env={**wanted.network.environment, **wanted.env, **injection.environment(sandbox.placeholders)},
        template_id=wanted.template.pk,
        ttl_ms=wanted.timeout_s * 1000,
        access_key=access.access_key(sandbox.pk, sandbox.generation).hex(),
        audit_key=tokens.audit_key(settings.GATEHOUSE.seed(), tenant, audit_key_id).hex(),
        audit_key_id=audit_key_id,
        copies_key=argument_copies.public_key(tenant),
        grants=access.grants_for(actor),
        ingress={
            "public": sandbox.allow_public_traffic,
            "traffic_token": access.traffic_token(sandbox) or "",
            "mask_host": sandbox.mask_request_host,
            "https_ports": sandbox.https_ports,
            "ports": sandbox.ingress_ports,
        },
        runtime=sandbox.runtime,
        on_timeout=on_timeout(sandbox),
        auto_resume=sandbox.auto_resume,
        network=networks.in_spec(sandbox),
    )


def give_up(client: NodeClient, actor: Actor, sandbox: Sandbox, error: GatehouseError) -> None:
    """Write down that a start failed, and free what it held.

    When the node may have acted, the row is `ending` until the node confirmed that nothing is left; if it
    can't be asked now, the reconciler does it later.
    """
    certain = _nothing_was_left(error)
    with turns.write():
        if certain:
            endings.end_row(sandbox.pk, reason=EndReason.START_FAILED)
        else:
            endings.mark_ending(sandbox.pk, reason=EndReason.START_FAILED)
        recording.record(
            "sandbox.create_failed",
            actor=actor,
            object_type=OBJECT,
            object_id=sandbox.pk,
            tenant_id=actor.tenant_id,
            outcome="error",
            details={"error_code": error.code, "message": error.message, "build": sandbox.build_id},
        )
    if not certain:
        with contextlib.suppress(GatehouseError):
            endings.finish_ending(client, sandbox, reason=EndReason.START_FAILED)


def _nothing_was_left(error: GatehouseError) -> bool:
    if isinstance(error, NodeSilent):
        return False
    return isinstance(error, NodeUnavailable | TierUnavailable | BuildMissing | NoRoom)


def write_running(sandbox: Sandbox, answer: Json) -> bool:
    """Write that the node runs the sandbox. Returns False when the row was ended meanwhile."""
    started_at, end_at = clock.from_ms(answer["started_at"]), clock.from_ms(answer["end_at"])
    with turns.write():
        moved = statements.move_to_running(sandbox.pk, started_at, end_at)
        if moved:
            quota.commit(sandbox.pk)
    if moved:
        sandbox.state, sandbox.started_at, sandbox.end_at = SandboxState.RUNNING, started_at, end_at
    return moved


def drop_unwanted(client: NodeClient, sandbox: Sandbox) -> StartFailed:
    """Stop a sandbox that started after its row had ended, and return the error for the caller."""
    with contextlib.suppress(GatehouseError):
        client.stop(sandbox.pk, sandbox.generation)
    return StartFailed("The sandbox was ended while it started.")
