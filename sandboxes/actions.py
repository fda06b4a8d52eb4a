"""Every change to sandboxes and templates, one function each.

An action checks the scope, writes what it is about to do (row and audit event), asks the node outside any
transaction, and writes what came of it. All may be called again after a crash.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from django.db import IntegrityError, transaction

from audit import recording
from corekit import clock, ids
from corekit.actor import SYSTEM
from corekit.errors import Conflict, GatehouseError, InvalidInput, NotFound, QuotaExceeded
from sandboxes import (
    access,
    endings,
    idempotency,
    isolation,
    launch,
    networks,
    node_client,
    nodes,
    pausing,
    reconcile,
    selectors,
    turns,
)
from sandboxes.access import Access
from sandboxes.errors import StateDiffers, UnknownAtNode
from sandboxes.launch import Ingress
from sandboxes.models import Sandbox, Template
from sandboxes.networks import Wish
from sandboxes.states import EndReason, SandboxState
from tenants import injection, policy, quota
from tenants.states import TenantState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from corekit.actor import Actor
    from sandboxes.node_client import NodeClient

Written = TypeVar("Written")

SHORTEST_WAKE_S = 300
"""For how long traffic wakes a sandbox at least."""
_SLEEPING = frozenset({SandboxState.PAUSING, SandboxState.PAUSED, SandboxState.RESUMING})
_DENIED_RISK = 60
READ, WRITE, USE = "sandboxes:read", "sandboxes:write", "sandboxes:use"
_BUILD_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def create_sandbox(
    *,
    actor: Actor,
    template: str,
    timeout_s: int,
    metadata: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    tier: str | None = None,
    profile: str | None = None,
    runtime: str | None = None,
    cpu_milli: int | None = None,
    memory_mib: int | None = None,
    disk_mib: int | None = None,
    auto_pause: bool = False,
    auto_resume: bool = False,
    ingress: Ingress | None = None,
    network: Wish | None = None,
    idempotency_key: str | None = None,
    request_digest: str = "",
) -> Access:
    """Create a sandbox and return it running, with the caller's token.

    `timeout_s` is its lifetime from the moment it is ready; at its end it is paused with `auto_pause`, else
    killed. With `auto_resume` a request to one of its ports wakes it. Isolation and sizes that are not given are the
    template's; a weaker isolation than the template's is refused. Raises NotFound (template), InvalidInput
    (lifetime, isolation, sizes, network), QuotaExceeded, RateLimited, TierUnavailable, NoRoom, StartFailed or
    NodeUnavailable; afterwards nothing is reserved and nothing runs. With an idempotency key a repeated
    request gets the first one's sandbox.
    """
    policy.require(actor, WRITE)
    if actor.tenant_id is None:
        raise InvalidInput("A sandbox needs a tenant.", field="tenant")
    if idempotency_key is not None:
        first = idempotency.first_result(actor, idempotency_key, request_digest)
        if first is not None:
            return first
    wish = network or Wish()
    injection.require_free(wish.injected, env or {})
    client = node_client.local_node()
    found = selectors.template_for(actor, template)
    _require_lifetime(UUID(actor.tenant_id), timeout_s)
    resources = quota.resolve_resources(
        actor.tenant_id,
        cpu_milli=found.cpu_milli if cpu_milli is None else cpu_milli,
        memory_mib=found.memory_mib if memory_mib is None else memory_mib,
        disk_mib=found.disk_mib if disk_mib is None else disk_mib,
    )
    wanted = launch.Wanted(
        tenant_id=actor.tenant_id,
        template=found,
        isolation=isolation.resolve(found, tier=tier, profile=profile, runtime=runtime, min_tier=resources.min_tier),
        node_id=nodes.current_node_id(client),
        resources=resources,
        timeout_s=timeout_s,
        metadata=metadata or {},
        env=env or {},
        auto_pause=auto_pause,
        auto_resume=auto_resume,
        ingress=ingress or Ingress(),
        network=networks.plan(actor.tenant_id, wish),
        idempotency_key=idempotency_key,
        request_digest=request_digest,
    )
    return _launch(client, actor, wanted)


def _launch(client: NodeClient, actor: Actor, wanted: launch.Wanted) -> Access:
    try:
        sandbox = _reserve(client, actor, wanted.tenant_id, lambda: launch.write_intent(actor, wanted))
    except IntegrityError:
        # Only the idempotency key can collide: the other of two at the same moment was first.
        if wanted.idempotency_key is None:
            raise
        first = idempotency.first_result(actor, wanted.idempotency_key, wanted.request_digest)
        if first is None:
            raise
        return first
    answer = launch.start_at_node(client, actor, sandbox, wanted)
    if not launch.write_running(sandbox, answer):
        raise launch.drop_unwanted(client, sandbox)
    return Access(sandbox, access.token_for(actor, sandbox))


def _reserve(client: NodeClient, actor: Actor, tenant_id: str, write: Callable[[], Written]) -> Written:
    """Write an intent; when the quota refuses, look once whether the node knows of sandboxes that ended."""
    try:
        try:
            return write()
        except QuotaExceeded:
            if not reconcile.refresher.refresh(client):
                raise
            return write()
    except QuotaExceeded as refusal:
        _record_refusal(actor, tenant_id, refusal)
        raise


def _record_refusal(actor: Actor, tenant_id: str, refusal: QuotaExceeded) -> None:
    with turns.write():
        recording.record(
            "quota.refused",
            actor=actor,
            object_type="tenant",
            object_id=tenant_id,
            tenant_id=tenant_id,
            outcome="refused",
            details=refusal.details,
        )


def connect_sandbox(*, actor: Actor, sandbox_id: str, timeout_s: int) -> Access:
    """Let the caller into a sandbox: a running one lives at least `timeout_s` from now, a paused one goes on.

    Raises NotFound, Conflict while it starts or ends, InvalidInput for a lifetime that is too long, and for a
    paused one QuotaExceeded, NoRoom or NodeUnavailable: it then stays paused.
    """
    policy.require(actor, USE)
    sandbox = selectors.sandbox_for(actor, sandbox_id)
    longest_s = _require_lifetime(sandbox.tenant_id, timeout_s)
    if sandbox.state not in _SLEEPING:
        try:
            _move_deadline(actor, sandbox, timeout_s, "sandbox.connected", longest_s=longest_s, extend_only=True)
        except StateDiffers:
            sandbox = _as_the_node_says(sandbox)
        else:
            return Access(sandbox, access.token_for(actor, sandbox))
    return _wake(actor, sandbox, timeout_s, "connect")


def resume_sandbox(*, actor: Actor, sandbox_id: str, timeout_s: int) -> Access:
    """Let a paused sandbox go on for `timeout_s`. Raises as `connect_sandbox`, and Conflict for one that runs."""
    policy.require(actor, USE)
    sandbox = selectors.sandbox_for(actor, sandbox_id)
    _require_lifetime(sandbox.tenant_id, timeout_s)
    if sandbox.state == SandboxState.RUNNING:
        # Its time may have been over a moment ago.
        sandbox = _as_the_node_says(sandbox)
    if sandbox.state == SandboxState.RUNNING:
        raise _wrong_state(sandbox)
    return _wake(actor, sandbox, timeout_s, "resume")


def resume_for_traffic(*, actor: Actor, sandbox_id: str, generation: int) -> None:
    """Let a sandbox go on because a request to it came in; one that runs already goes on running.

    Raises NotFound, Conflict when traffic does not wake it or its tenant is suspended, and as `connect_sandbox`.
    """
    policy.require(actor, "platform:write")
    sandbox = selectors.sandbox_at_node(sandbox_id, generation)
    if not sandbox.auto_resume:
        raise Conflict("Requests do not wake this sandbox.", state=str(sandbox.state))
    if sandbox.tenant.state != TenantState.ACTIVE:
        raise Conflict("The tenant is suspended.")
    if selectors.held_for_risk(sandbox):
        raise Conflict("The sandbox was paused for its risk.", state=str(sandbox.state))
    timeout_s = max(sandbox.timeout_s, SHORTEST_WAKE_S)
    if sandbox.state == SandboxState.RUNNING:
        sandbox = _as_the_node_says(sandbox)
        if sandbox.state == SandboxState.RUNNING:
            return
    _wake(actor, sandbox, min(timeout_s, selectors.longest_lifetime_s(sandbox.tenant_id)), "traffic")


def _as_the_node_says(sandbox: Sandbox) -> Sandbox:
    reconcile.settle(node_client.local_node(), sandbox)
    return selectors.live_row(sandbox.pk)


def _wake(actor: Actor, sandbox: Sandbox, timeout_s: int, reason: str) -> Access:
    """Let a paused sandbox go on, whatever half-way state it is in."""
    client = node_client.local_node()
    ttl_ms = timeout_s * 1000
    try:
        if sandbox.state == SandboxState.PAUSING:
            pausing.finish_pause(client, sandbox)
            sandbox = selectors.live_row(sandbox.pk)
        if sandbox.state == SandboxState.PAUSED and not _begin_resume(client, actor, sandbox, ttl_ms, reason):
            sandbox = selectors.live_row(sandbox.pk)
        # It may run by now: then somebody else was first.
        if sandbox.state not in {SandboxState.RESUMING, SandboxState.RUNNING}:
            raise _wrong_state(sandbox)
        access.grant(client, sandbox, actor)
        pausing.finish_resume(client, sandbox, ttl_ms=ttl_ms)
    except UnknownAtNode:
        raise _gone(client, sandbox) from None
    return Access(sandbox, access.token_for(actor, sandbox), resumed=True)


def _begin_resume(client: NodeClient, actor: Actor, sandbox: Sandbox, ttl_ms: int, reason: str) -> bool:
    return _reserve(
        client,
        actor,
        sandbox.tenant_id.hex,
        lambda: pausing.begin_resume(actor, sandbox, ttl_ms=ttl_ms, reason=reason),
    )


def pause_sandbox(*, actor: Actor, sandbox_id: str) -> None:
    """Freeze a running sandbox; returns when it is paused. Its memory and disk stay reserved, nothing else does.

    Raises NotFound, Conflict when it does not run, or NodeUnavailable.
    """
    policy.require(actor, WRITE)
    _pause(actor, selectors.sandbox_for(actor, sandbox_id), "requested")


def pause_for_risk(sandbox: Sandbox) -> None:
    """Freeze a sandbox because the audit's judgement asks for it. Raises as `pause_sandbox`."""
    _pause(SYSTEM, sandbox, "risk")


def _pause(actor: Actor, sandbox: Sandbox, reason: str) -> None:
    client = node_client.local_node()
    if not pausing.begin_pause(actor, sandbox, reason=reason):
        sandbox = selectors.live_row(sandbox.pk)
        if sandbox.state != SandboxState.PAUSING:
            raise _wrong_state(sandbox)
    try:
        pausing.finish_pause(client, sandbox)
    except UnknownAtNode:
        raise _gone(client, sandbox) from None


def _wrong_state(sandbox: Sandbox) -> Conflict:
    if sandbox.state == SandboxState.PAUSED:
        return Conflict("The sandbox is paused.", state=str(sandbox.state))
    if sandbox.state == SandboxState.RUNNING:
        return Conflict("The sandbox is running.", state=str(sandbox.state))
    return Conflict(f"The sandbox is {sandbox.state}; try again in a moment.", state=str(sandbox.state))


def open_sandbox(*, actor: Actor, sandbox_id: str) -> Access:
    """Return a live sandbox as it is, with the caller's token if it may execute. Raises NotFound."""
    policy.require(actor, READ)
    sandbox = selectors.sandbox_for(actor, sandbox_id)
    if sandbox.state in {SandboxState.STARTING, SandboxState.ENDING} or not access.may_execute(actor):
        return Access(sandbox, None)
    client = node_client.local_node()
    try:
        access.grant(client, sandbox, actor)
    except UnknownAtNode:
        raise _gone(client, sandbox) from None
    return Access(sandbox, access.token_for(actor, sandbox))


def set_timeout(*, actor: Actor, sandbox_id: str, timeout_s: int) -> None:
    """Let a sandbox's time be over `timeout_s` from now, earlier or later than before; 0 pauses or ends it at once.

    Raises NotFound, Conflict unless it runs, InvalidInput for a lifetime that is too long.
    """
    policy.require(actor, WRITE)
    sandbox = selectors.sandbox_for(actor, sandbox_id)
    if timeout_s > 0:
        longest_s = _require_lifetime(sandbox.tenant_id, timeout_s)
        _move_deadline(actor, sandbox, timeout_s, "sandbox.timeout_set", longest_s=longest_s, extend_only=False)
    elif sandbox.state in _SLEEPING:
        raise _wrong_state(sandbox)
    elif sandbox.auto_pause:
        _pause(actor, sandbox, "expired")
    else:
        _end(actor, sandbox_id, "sandbox.timeout_set", EndReason.EXPIRED)


def refresh_sandbox(*, actor: Actor, sandbox_id: str, duration_s: int, field: str = "duration") -> None:
    """Let a sandbox live at least `duration_s` from now; `field` names it in errors. Raises as `set_timeout`."""
    policy.require(actor, WRITE)
    sandbox = selectors.sandbox_for(actor, sandbox_id)
    longest_s = _require_lifetime(sandbox.tenant_id, duration_s, field)
    _move_deadline(actor, sandbox, duration_s, "sandbox.refreshed", longest_s=longest_s, extend_only=True)


def set_network(*, actor: Actor, sandbox_id: str, wish: Wish) -> None:
    """Change what a running sandbox may reach; returns once that holds, also for what is open.

    Raises NotFound, NetworkFixed, Conflict unless it runs, InvalidInput for an unknown policy; NodeUnavailable or
    EgressUnavailable when it can't be told now: it is then written down and told as soon as it can.
    """
    policy.require(actor, WRITE)
    sandbox = selectors.sandbox_for(actor, sandbox_id)
    networks.change(actor, sandbox, wish)
    client = node_client.local_node()
    try:
        networks.tell(client, sandbox)
    except UnknownAtNode:
        raise _gone(client, sandbox) from None


def kill_sandbox(*, actor: Actor, sandbox_id: str) -> None:
    """End a sandbox in any state; returns when it is really gone.

    Raises NotFound, or NodeUnavailable when the node can't be asked now: the sandbox is then ended as soon as
    it can.
    """
    policy.require(actor, WRITE)
    _end(actor, sandbox_id, "sandbox.killed", EndReason.KILLED)


def note_denied(*, actor: Actor, sandbox_id: str) -> None:
    """Record that somebody asked for a sandbox that never was their tenant's.

    Whether there is such a sandbox makes no difference, neither to the row nor to the time that this takes.
    """
    plain = ids.strip_client_suffix(sandbox_id)
    if actor.tenant_id is None or not ids.is_sandbox_id(plain) or selectors.was_ever_own(actor, plain):
        return
    with turns.write():
        recording.record(
            "sandbox.denied",
            actor=actor,
            object_type=launch.OBJECT,
            object_id=plain,
            tenant_id=actor.tenant_id,
            outcome="refused",
            risk=(_DENIED_RISK, "It asked for a sandbox that is not its tenant's."),
        )


def register_build(
    *,
    actor: Actor,
    name: str,
    build_id: str,
    tier: str = "container",
    profile: str = "workstation",
    runtime: str = "",
    cpu_milli: int | None = None,
    memory_mib: int | None = None,
    disk_mib: int | None = None,
    pids: int = 256,
) -> Template:
    """Make a build that lies on the nodes the public template of this name, or its newest build."""
    policy.require(actor, "platform:write")
    if not _BUILD_ID.fullmatch(build_id):
        raise InvalidInput("A build id has 1 to 64 characters of a-z, 0-9 and dashes.", field="build_id")
    values = {
        "build_id": build_id,
        "tier": tier,
        "profile": profile,
        "runtime": runtime,
        "cpu_milli": cpu_milli,
        "memory_mib": memory_mib,
        "disk_mib": disk_mib,
        "pids": pids,
        "updated_at": clock.now(),
    }
    with transaction.atomic():
        template, _ = Template.objects.update_or_create(tenant=None, name=name, defaults=values)
        recording.record(
            "template.registered",
            actor=actor,
            object_type="template",
            object_id=template.pk,
            tenant_id=None,
            arguments={"name": name, "build_id": build_id},
            details={"build": build_id},
        )
    return template


def _require_lifetime(tenant_id: UUID, timeout_s: int, field: str = "timeout") -> int:
    longest = selectors.longest_lifetime_s(tenant_id)
    if timeout_s > longest:
        raise InvalidInput(
            f"{field.capitalize()} cannot be greater than {_duration(longest)}", field=field, maximum=longest
        )
    return longest


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{seconds} seconds" if rest else f"{hours} hours"


def _move_deadline(
    actor: Actor, sandbox: Sandbox, timeout_s: int, code: str, *, longest_s: int, extend_only: bool
) -> None:
    if sandbox.state != SandboxState.RUNNING:
        raise _wrong_state(sandbox)
    # However often it is extended, a sandbox does not run on longer than the tenant's longest lifetime.
    left = (sandbox.resumed_at or sandbox.started_at) + timedelta(seconds=longest_s) - clock.now()
    ttl_ms = max(0, min(timeout_s * 1000, left // timedelta(milliseconds=1)))
    _record(actor, sandbox, code, ttl_ms)
    client = node_client.local_node()
    try:
        if code == "sandbox.connected":
            access.grant(client, sandbox, actor)
        answer = client.set_deadline(sandbox.pk, sandbox.generation, ttl_ms, extend_only=extend_only)
    except UnknownAtNode:
        _record(actor, sandbox, code, ttl_ms, outcome="error")
        raise _gone(client, sandbox) from None
    except GatehouseError:
        _record(actor, sandbox, code, ttl_ms, outcome="error")
        raise
    _write_deadline(sandbox, answer["end_at"])


def _write_deadline(sandbox: Sandbox, end_at_ms: int) -> None:
    sandbox.end_at = clock.from_ms(end_at_ms)
    Sandbox.everywhere().filter(pk=sandbox.pk, state=SandboxState.RUNNING).update(end_at=sandbox.end_at)


def _gone(client: NodeClient, sandbox: Sandbox) -> NotFound:
    """Bring the row up to date after the node said that it does not run the sandbox; return the answer."""
    reconcile.settle(client, sandbox)
    return selectors.no_sandbox()


def _end(actor: Actor, sandbox_id: str, code: str, reason: EndReason) -> None:
    with turns.write():
        sandbox = selectors.sandbox_for(actor, sandbox_id)
        if not endings.mark_ending(sandbox.pk, reason=reason):
            raise selectors.no_sandbox()
        details = {"reason": reason.value} if code == "sandbox.killed" else {"timeout_ms": 0}
        recording.record(
            code,
            actor=actor,
            object_type=launch.OBJECT,
            object_id=sandbox.pk,
            tenant_id=sandbox.tenant_id,
            details=details,
        )
    endings.finish_ending(node_client.local_node(), sandbox, reason=reason)


def _record(actor: Actor, sandbox: Sandbox, code: str, ttl_ms: int, *, outcome: str = "ok") -> None:
    with turns.write():
        recording.record(
            code,
            actor=actor,
            object_type=launch.OBJECT,
            object_id=sandbox.pk,
            tenant_id=sandbox.tenant_id,
            outcome=outcome,
            arguments={"timeout_ms": ttl_ms},
            details={"timeout_ms": ttl_ms},
        )
