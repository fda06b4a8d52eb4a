"""Erase a tenant: end what runs, take every access away, delete every row, and report what it was.

One operation, worked on in small steps by whoever holds its lease. Each step is harmless when it is done again, and
what it erased is counted in the same transaction, so that a crash anywhere loses neither work nor counts. It ends
only when the node has said that nothing of the tenant is left. The audit stays: it is the proof of what happened,
holds copies of names and ids, and neither arguments nor contents.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog

from audit import operations, recording, thresholds
from audit.models import Event, OperationState
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import Conflict, GatehouseError, InvalidInput, Unavailable
from sandboxes import endings, events, nodes, turns
from sandboxes.models import Execution, Node, Sandbox, Template
from sandboxes.states import LIVE, EndReason, SandboxState
from tenants import actions as tenant_actions
from tenants import policy
from tenants.models import ApiKey, LimitRange, Membership, Quota, Reservation, Tenant, User
from tenants.secretmodels import SealedValue, Secret
from tenants.secrets import erasing
from tenants.states import TENANT_STATES, TenantState

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from django.db.models import Model, QuerySet

    from audit.models import Operation
    from corekit.actor import Actor
    from sandboxes.node_client import NodeClient

logger = structlog.get_logger("sandboxes.offboarding")

KIND = "tenant.offboard"
BATCH = 500


class _OutOfTime(Exception):
    """The run has used its time; the next one goes on."""


def offboard_tenant(*, actor: Actor, tenant: Tenant, confirm: str) -> Operation:
    """Begin to erase a tenant and return the operation; again returns the one that is under way.

    From here on the tenant's keys open nothing and it can't be activated again. Raises InvalidInput unless
    `confirm` is its slug.
    """
    policy.require(actor, "platform:write")
    if confirm != tenant.slug:
        raise InvalidInput(
            f"This erases the tenant {tenant.slug} for good; write its slug to confirm that.", field="confirm"
        )
    with turns.write():
        operation, is_new = operations.begin(
            actor=actor,
            kind=KIND,
            object_type="tenant",
            object_id=tenant.pk.hex,
            tenant_id=tenant.pk,
            progress={"slug": tenant.slug, "step": "waiting", "erased": {}},
        )
        if is_new:
            before = TENANT_STATES.before(TenantState.OFFBOARDING)
            rows = Tenant.objects.filter(pk=tenant.pk, state__in=before)
            if not rows.update(state=TenantState.OFFBOARDING, state_changed_at=clock.now()):
                raise Conflict("The tenant is gone already.")
            _record("tenant.offboarding", actor, tenant.pk, name=tenant.name, slug=tenant.slug, operation=operation.pk)
    # Here and not in the steps, which the worker does: it can't reach vaults.
    erasing.erase_elsewhere(tenant.pk)
    return operation


def go_on(client: NodeClient, *, budget_s: float) -> None:
    """Work on every tenant that is to be erased, for a while."""
    for operation in operations.running(KIND):
        work(client, operation, budget_s=budget_s)


def work(client: NodeClient, operation: Operation, *, budget_s: float) -> bool:
    """Work on one operation for a while; say whether it is finished. What holds it up is written to its row."""
    lease = operations.Lease(operation)
    if not lease.take():
        return operation.state == OperationState.SUCCEEDED
    said = ""
    try:
        _Erasure(client, lease, time.monotonic() + budget_s).run()
    except _OutOfTime:
        pass
    except GatehouseError as error:
        logger.warning("offboarding_waits", operation=operation.pk, error=error.code)
        said = error.message
    else:
        return True
    try:
        lease.let_go(said)
    except Conflict:
        logger.warning("offboarding_taken_over", operation=operation.pk)
    return False


class _Erasure:
    """The steps, in their order."""

    def __init__(self, client: NodeClient, lease: operations.Lease, until: float) -> None:
        self.client = client
        self.lease = lease
        self.until = until
        self.tenant_id: UUID = lease.operation.tenant_id  # type: ignore[assignment]
        self.slug = str(lease.operation.progress["slug"])
        self.erased: Counter[str] = Counter(lease.operation.progress["erased"])

    def run(self) -> None:
        """Do all that is left. Raises a GatehouseError for what it has to wait for."""
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("keys", self.revoke_keys),
            ("secrets", self.erase_secrets),
            ("sandboxes", self.end_sandboxes),
            ("quota", self.close_the_door),
            ("node", self.ask_the_node),
            ("events", self.collect_events),
            ("rows", self.delete_rows),
            ("tenant", self.delete_tenant),
        )
        for name, step in steps:
            self.note(name)
            step()

    def write(self, step: str) -> None:
        """Write how far it is, and hold the lease. Raises Conflict when somebody else took it."""
        self.lease.write({"slug": self.slug, "step": step, "erased": dict(self.erased)})

    def note(self, step: str) -> None:
        """Write how far it is, between transactions. Raises _OutOfTime when this run has used its time."""
        self.write(step)
        if time.monotonic() > self.until:
            raise _OutOfTime

    def revoke_keys(self) -> None:
        """Let no key open anything, here and at the node."""
        for key in ApiKey.everywhere().filter(tenant_id=self.tenant_id, revoked_at=None).select_related("tenant"):
            tenant_actions.revoke_api_key(actor=SYSTEM, key=key)

    def erase_secrets(self) -> None:
        """Make the secrets unreadable, and wait until no vault keeps one."""
        with turns.write():
            self.erased["vault_keys"] += erasing.forget_key(self.tenant_id)
            self.write("secrets")
        if left := erasing.kept_elsewhere(self.tenant_id).count():
            raise Unavailable(f"{left} secrets are still in a vault that was away: run `manage.py vault sweep`.")

    def end_sandboxes(self) -> None:
        """End what lives, running or paused; each is gone at the node before its row says so."""
        for sandbox in self.owned(Sandbox).filter(state__in=LIVE).order_by("pk"):
            if sandbox.state == SandboxState.STARTING:
                # Its creator waits for the node, which may hear of it only after we asked.
                raise Unavailable("A sandbox is still starting; it is ended as soon as it runs or failed.")
            with turns.write():
                if sandbox.state != SandboxState.ENDING and endings.mark_ending(sandbox.pk, reason=EndReason.KILLED):
                    recording.record(
                        "sandbox.killed",
                        actor=SYSTEM,
                        object_type="sandbox",
                        object_id=sandbox.pk,
                        tenant_id=self.tenant_id,
                        details={"reason": EndReason.KILLED.value},
                    )
            endings.finish_ending(self.client, sandbox, reason=EndReason.KILLED)
            self.note("sandboxes")

    def close_the_door(self) -> None:
        """Delete the quota: without it, not even a create that was let in before can begin any more."""
        with turns.write():
            for name, model in (("quotas", Quota), ("limit_ranges", LimitRange), ("reservations", Reservation)):
                self.delete(name, self.owned(model))
            if self.owned(Sandbox).filter(state__in=LIVE).exists():
                raise Unavailable("A sandbox was made a moment ago; it is ended first.")
            self.write("quota")

    def ask_the_node(self) -> None:
        """Stop what the node still keeps of the tenant, whatever our rows say, and hear it say that nothing is left."""
        for guest in self.kept_at_node():
            self.client.stop(str(guest["id"]), int(guest["generation"]))
            self.note("node")
        if self.kept_at_node():
            raise Unavailable("The node still keeps a sandbox of the tenant.")

    def kept_at_node(self) -> list[dict[str, Any]]:
        """Return what the node keeps of the tenant and has not ended."""
        kept = self.client.list()["sandboxes"]
        return [guest for guest in kept if guest["tenant"] == self.tenant_id.hex and guest["state"] != "ended"]

    def collect_events(self) -> None:
        """Bring in what the node has seen of the tenant so far: once its rows are gone, no event finds its tenant."""
        node = nodes.current_node(self.client)
        last = int(self.client.events(after=node.events_upto, limit=1)["last"])
        while Node.objects.values_list("events_upto", flat=True).get(pk=node.pk) < last:
            events.collect(self.client)
            self.note("events")

    def delete_rows(self) -> None:
        """Delete all that belongs to the tenant, a batch at a time, and the accounts that belonged to nobody else."""
        models: tuple[tuple[str, Any], ...] = (
            ("executions", Execution),
            ("sandboxes", Sandbox),
            ("secret_values", SealedValue),
            ("secrets", Secret),
        )
        for name, model in models:
            while batch := list(self.owned(model).values_list("pk", flat=True)[:BATCH]):
                with turns.write():
                    self.delete(name, model.everywhere().filter(pk__in=batch))
                    self.write("rows")
                self.note("rows")
        with turns.write():
            accounts = list(self.owned(Membership).values_list("user_id", flat=True))
            self.delete("templates", Template.objects.filter(tenant_id=self.tenant_id))
            self.delete("api_keys", self.owned(ApiKey))
            self.delete("members", self.owned(Membership))
            alone = User.objects.filter(pk__in=accounts, is_staff=False, is_superuser=False, memberships=None)
            self.delete("accounts", User.objects.filter(pk__in=list(alone.values_list("pk", flat=True))))
            self.write("rows")

    def delete_tenant(self) -> None:
        """Delete the tenant itself, write the report, and finish."""
        with turns.write():
            self.delete("tenants", Tenant.objects.filter(pk=self.tenant_id))
            thresholds.forget(self.tenant_id)
            erased = ", ".join(f"{count} {name}" for name, count in self.erased.items())
            _record("tenant.offboarded", SYSTEM, self.tenant_id, operation=self.lease.operation.pk, erased=erased)
            kept = Event.objects.filter(tenant_id=self.tenant_id).count()
            self.lease.succeed({"slug": self.slug, "erased": dict(self.erased), "kept": {"audit_events": kept}})

    def owned(self, model: Any) -> QuerySet[Any]:
        """Return the tenant's rows of a model."""
        rows: QuerySet[Any] = model.everywhere().filter(tenant_id=self.tenant_id)
        return rows

    def delete(self, name: str, rows: QuerySet[Model]) -> None:
        """Delete rows and count those of their own kind, inside the caller's transaction."""
        _, by_kind = rows.delete()
        self.erased[name] += by_kind.get(rows.model._meta.label, 0)


def _record(code: str, actor: Actor, tenant_id: UUID, **details: object) -> None:
    recording.record(
        code, actor=actor, object_type="tenant", object_id=tenant_id.hex, tenant_id=tenant_id, details=details
    )
