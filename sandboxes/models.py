"""Rows of nodes, templates, sandboxes and executions. The rows are the truth; nodes are made to follow them."""

from __future__ import annotations

import hashlib
import secrets
import string
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Q

from corekit import clock, ids
from sandboxes.states import EXECUTION_ENDS, EndReason, ExecutionState, NetworkMode, SandboxState
from tenants.models import Tenant, TenantOwned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corekit.actor import Actor

_ALPHABET = string.digits + string.ascii_lowercase


def new_template_id() -> str:
    """Return a new template id: 20 characters of a-z0-9."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))


def metadata_digest(key: str, value: str) -> str:
    """Return the search term of one metadata pair: exact on every database, whatever the key contains."""
    return hashlib.sha256(f"{len(key)}:{key}{value}".encode()).hexdigest()[:32]


def metadata_digests(metadata: Mapping[str, str]) -> str:
    """Return the search terms of all pairs, separated by blanks."""
    return " ".join(metadata_digest(key, value) for key, value in metadata.items())


class Node(models.Model):
    """A host that keeps sandboxes.

    `events_upto` is the number of its last event that was committed here; `revocations_upto` the time up to
    which it knows every revoked API key.
    """

    id = models.CharField(primary_key=True, max_length=64)
    boot_id = models.CharField(max_length=64, blank=True)
    version = models.CharField(max_length=64, blank=True)
    capabilities = models.JSONField(default=dict, blank=True)
    events_upto = models.BigIntegerField(default=0)
    revocations_upto = models.DateTimeField(default=clock.now)
    first_seen_at = models.DateTimeField(default=clock.now)
    last_seen_at = models.DateTimeField(default=clock.now, db_index=True)

    def __str__(self) -> str:
        return self.id


class Template(models.Model):
    """What a sandbox is made from: a build on the nodes and the resources it gets by default.

    Public when it has no tenant. `tier`, `profile` and `runtime` ("" leaves it to the node) are a minimum: a
    sandbox may be isolated better, never worse. Sizes are in MiB, CPU in thousandths of a core; None leaves
    the choice to the tenant's limit range.
    """

    id = models.CharField(primary_key=True, max_length=64, default=new_template_id)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=128)
    build_id = models.CharField(max_length=64)
    tier = models.CharField(max_length=16, default="container")
    profile = models.CharField(max_length=16, default="workstation")
    runtime = models.CharField(max_length=16, blank=True, default="")
    cpu_milli = models.PositiveIntegerField(null=True, blank=True)
    memory_mib = models.PositiveIntegerField(null=True, blank=True)
    disk_mib = models.PositiveIntegerField(null=True, blank=True)
    pids = models.PositiveIntegerField(default=256)
    created_at = models.DateTimeField(default=clock.now)
    updated_at = models.DateTimeField(default=clock.now)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("name",), condition=Q(tenant=None), name="sandboxes_template_public_name"),
            models.UniqueConstraint(
                fields=("tenant", "name"), condition=Q(tenant__isnull=False), name="sandboxes_template_tenant_name"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def visible_to(cls, actor: Actor) -> models.QuerySet[Template]:
        """Return the public templates and those of the actor's tenant."""
        return cls.objects.filter(Q(tenant=None) | Q(tenant=actor.tenant_id))


class Sandbox(TenantOwned):
    """One sandbox, from the wish to the end. Its environment variables are never stored here.

    `generation` counts its incarnations; tokens and node calls name it. `timeout_s` is the lifetime asked
    for at create. `started_at` is the time of the wish until the node reports the real start; `end_at` is
    when the node ends it, or pauses it with `auto_pause`; None while it starts, and of no meaning while
    `paused_at` says since when it is paused. `resumed_at` is when it last went on: a tenant's longest lifetime
    counts from there. `created_by` is the id of the API key.

    `network` is what was asked for in E2B's words, `network_policy` the name of the policy that it is under instead;
    the parts of an upstream proxy that nobody is shown are encrypted in `network_secrets`. `network_version` counts
    what its egress rules should be, and `network_acked` says up to which the node took them. `ingress_ports` None
    serves every port. While `network_cut` nothing is let out, whatever was asked for.

    `injected` is what is put into its requests on their way out. It names secrets and holds none.
    """

    id = models.CharField(primary_key=True, max_length=64, default=ids.new_sandbox_id)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    template = models.ForeignKey(Template, null=True, on_delete=models.SET_NULL, related_name="+")
    template_name = models.CharField(max_length=128)
    build_id = models.CharField(max_length=64)
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="+", db_index=False)
    generation = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=16, choices=SandboxState, default=SandboxState.STARTING)
    tier = models.CharField(max_length=16)
    profile = models.CharField(max_length=16)
    runtime = models.CharField(max_length=16, blank=True, default="")
    cpu_milli = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    disk_mib = models.PositiveIntegerField()
    pids = models.PositiveIntegerField()
    metadata = models.JSONField(default=dict, blank=True)
    metadata_terms = models.TextField(default="", blank=True)
    allow_internet_access = models.BooleanField(null=True, blank=True)
    allow_public_traffic = models.BooleanField(default=True)
    mask_request_host = models.CharField(max_length=255, blank=True, default="")
    https_ports = models.JSONField(default=list, blank=True)
    ingress_ports = models.JSONField(null=True, blank=True)
    network_policy = models.CharField(max_length=63, blank=True, default="")
    network_mode = models.CharField(max_length=8, choices=NetworkMode, default=NetworkMode.NONE)
    network = models.JSONField(default=dict, blank=True)
    network_secrets = models.TextField(blank=True, default="")
    network_version = models.PositiveIntegerField(default=1)
    network_acked = models.PositiveIntegerField(default=1)
    network_cut = models.BooleanField(default=False)
    injected = models.JSONField(default=dict, blank=True)
    auto_pause = models.BooleanField(default=False)
    auto_resume = models.BooleanField(default=False)
    timeout_s = models.PositiveBigIntegerField()
    created_by = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=clock.now)
    started_at = models.DateTimeField(default=clock.now)
    end_at = models.DateTimeField(null=True, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    resumed_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=32, choices=EndReason, blank=True, default="")
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001
    request_digest = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        verbose_name_plural = "sandboxes"
        indexes = (
            # Live rows in the order of a list, with the state for its filter: `ended_at` is NULL in just these.
            models.Index(
                fields=("tenant", "-started_at", "id", "state"),
                condition=Q(ended_at=None),
                name="sandboxes_sandbox_live",
            ),
            # As wide as the one above: of two that fit, the narrower one would be taken, ended rows and all.
            models.Index(fields=("tenant", "-started_at", "id", "state"), name="sandboxes_sandbox_page"),
            models.Index(fields=("-started_at", "id"), name="sandboxes_sandbox_all"),
            # The same two for operators, who list every tenant's.
            models.Index(fields=("-started_at", "id"), condition=Q(ended_at=None), name="sandboxes_sandbox_all_live"),
            models.Index(fields=("-started_at", "id"), name="sandboxes_sandbox_all_page"),
            models.Index(fields=("state", "node"), name="sandboxes_sandbox_node"),
            # What a node has still to be told, and what is cut: a few rows, looked for each second.
            models.Index(
                fields=("id",),
                condition=Q(ended_at=None, network_acked__lt=models.F("network_version")),
                name="sandboxes_sandbox_untold",
            ),
            models.Index(fields=("id",), condition=Q(ended_at=None, network_cut=True), name="sandboxes_sandbox_cut"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(state__in=SandboxState.values), name="sandboxes_sandbox_state"),
            models.CheckConstraint(
                condition=Q(state=SandboxState.ENDED, ended_at__isnull=False)
                | (~Q(state=SandboxState.ENDED) & Q(ended_at=None)),
                name="sandboxes_sandbox_ended_has_time",
            ),
            # A request without a key has NULL, not "": a unique constraint lets only NULLs repeat.
            models.UniqueConstraint(fields=("tenant", "idempotency_key"), name="sandboxes_sandbox_idempotency"),
        )

    def __str__(self) -> str:
        return self.id

    @property
    def header_rules(self) -> Mapping[str, Any]:
        """What is set on its requests, by host."""
        rules: Mapping[str, Any] = self.injected.get("rules", {})
        return rules

    @property
    def identities(self) -> Mapping[str, Mapping[str, str]]:
        """Its workload identity tokens, by name."""
        identities: Mapping[str, Mapping[str, str]] = self.injected.get("identities", {})
        return identities

    @property
    def placeholders(self) -> Sequence[Mapping[str, Any]]:
        """The texts that it holds in the place of secrets."""
        placeholders: Sequence[Mapping[str, Any]] = self.injected.get("placeholders", [])
        return placeholders


class Execution(TenantOwned):
    """One piece of code that was run in a sandbox made for it. Of the code only what findings quote is kept.

    `floor` is the least tier that the code may have, and `floor_reason` says what asked for the one it got.
    `until` is when whoever works on it has given up: a row that is older is ended by the reconciler. What it wrote
    is kept until `output_until`.
    """

    id = models.CharField(primary_key=True, max_length=32, default=ids.new_event_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=16, choices=ExecutionState, default=ExecutionState.STARTING)
    language = models.CharField(max_length=16)
    template_name = models.CharField(max_length=128)
    tier = models.CharField(max_length=16)
    requested_tier = models.CharField(max_length=16, blank=True, default="")
    floor = models.CharField(max_length=16)
    floor_reason = models.TextField(blank=True, default="")
    risk = models.JSONField(default=dict)
    sandbox_id = models.CharField(max_length=64, blank=True, default="")
    timeout_s = models.PositiveIntegerField()
    until = models.DateTimeField()
    reason = models.CharField(max_length=300, blank=True, default="")
    stdout = models.TextField(blank=True, default="")
    stderr = models.TextField(blank=True, default="")
    truncated = models.BooleanField(default=False)
    output_until = models.DateTimeField(null=True)
    exit_code = models.IntegerField(null=True)
    duration_ms = models.PositiveIntegerField(null=True)
    created_by = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=clock.now)
    ended_at = models.DateTimeField(null=True)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001
    request_digest = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        indexes = (
            models.Index(fields=("tenant", "-created_at", "id"), name="sandboxes_execution_page"),
            models.Index(fields=("-created_at", "id"), name="sandboxes_execution_all"),
            models.Index(fields=("until",), condition=Q(ended_at=None), name="sandboxes_execution_open"),
            models.Index(
                fields=("output_until",), condition=Q(output_until__isnull=False), name="sandboxes_execution_kept"
            ),
        )
        constraints = (
            models.CheckConstraint(condition=Q(state__in=ExecutionState.values), name="sandboxes_execution_state"),
            models.CheckConstraint(
                condition=Q(state__in=EXECUTION_ENDS, ended_at__isnull=False)
                | (~Q(state__in=EXECUTION_ENDS) & Q(ended_at=None)),
                name="sandboxes_execution_ended_has_time",
            ),
            models.UniqueConstraint(fields=("tenant", "idempotency_key"), name="sandboxes_execution_idempotency"),
        )

    def __str__(self) -> str:
        return self.id
