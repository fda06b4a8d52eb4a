"""Rows of scoped tokens, of their uses, and of the services that they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Q
from django.utils import timezone

from corekit.ids import new_event_id, new_key_id
from tenants.models import Tenant, TenantOwned

if TYPE_CHECKING:
    from corekit.actor import Actor


class BrokerService(models.Model):
    """A service that the broker reaches, under a name that tokens use; the platform's own when it has no tenant.

    `slot` says where the secret travels, `headers` which of a sandbox's headers go along beside the usual ones.
    `private` lets it have an address that is not public. Each change counts `version` up.
    """

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=63)
    version = models.PositiveIntegerField(default=1)
    kind = models.CharField(max_length=16, default="generic")
    base_url = models.CharField(max_length=300)
    slot = models.CharField(max_length=80, default="bearer")
    headers = models.JSONField(default=list)
    private = models.BooleanField(default=False)
    microusd_per_mtok = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_by = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ("name", "id")
        indexes = (models.Index(fields=("tenant", "name", "id"), name="tenants_brokerservice_list"),)
        constraints = (
            models.UniqueConstraint(
                fields=("name",), condition=Q(tenant=None), name="tenants_brokerservice_platform_name"
            ),
            models.UniqueConstraint(
                fields=("tenant", "name"), condition=Q(tenant__isnull=False), name="tenants_brokerservice_tenant_name"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def visible_to(cls, actor: Actor) -> models.QuerySet[BrokerService]:
        """Return the platform's services and the tenant's own, for operators all."""
        if actor.tenant_id is None and actor.has("*"):
            return cls.objects.all()
        return cls.objects.filter(Q(tenant=None) | Q(tenant=actor.tenant_id))


class TokenEnd(models.TextChoices):
    """Why a token counts no more, beside having expired or been used up. What has ended never counts again."""

    REVOKED = "revoked", "Revoked"
    SANDBOX_ENDED = "sandbox_ended", "Its sandbox ended"
    RESTARTED = "restarted", "Its sandbox was started anew"
    RISK = "risk", "Voided for risk"
    KEY_REVOKED = "key_revoked", "The API key that issued it was revoked"
    TENANT_SUSPENDED = "tenant_suspended", "The tenant was suspended"


def _amount() -> models.PositiveBigIntegerField[int, int]:
    return models.PositiveBigIntegerField(default=0, editable=False)


class ScopedToken(TenantOwned):
    """A right to use one secret at one service, for one generation of one sandbox or for one run.

    The text is shown once and never stored; `hash` is its SHA-256. `allow` are the calls that it is good for, `params`
    what their bodies may say. A limit of None is none; `max_uses` 1 makes it a one-time token. What is under way is
    `reserved` of the budget, and `spent` once it is over. Amounts move only together with a `TokenUse`.
    """

    id = models.CharField(max_length=16, primary_key=True, default=new_key_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    hash = models.CharField(max_length=64, editable=False)
    sandbox_id = models.CharField(max_length=64, blank=True, default="")
    generation = models.PositiveIntegerField(default=0)
    run = models.CharField(max_length=64, blank=True, default="")

    # The id as well: a name that was deleted and given again is another secret.
    secret_name = models.CharField(max_length=128)
    secret_id = models.CharField(max_length=40)
    service = models.CharField(max_length=63)
    allow = models.JSONField(default=list)
    params = models.JSONField(default=dict)
    purpose = models.CharField(max_length=200, blank=True, default="")

    not_before = models.DateTimeField()
    expires_at = models.DateTimeField()
    max_uses = models.PositiveIntegerField(null=True, default=1)
    uses = models.PositiveIntegerField(default=0, editable=False)
    requests_per_minute = models.PositiveIntegerField(null=True)
    # When the next use would be allowed if they came evenly spaced, in µs since 1970.
    next_use_us = models.BigIntegerField(default=0, editable=False)

    max_bytes_out = models.PositiveBigIntegerField(null=True)
    max_tokens = models.PositiveBigIntegerField(null=True)
    max_microusd = models.PositiveBigIntegerField(null=True)
    tokens_per_use = models.PositiveBigIntegerField(default=0)
    microusd_per_use = models.PositiveBigIntegerField(default=0)
    microusd_per_mtok = models.PositiveBigIntegerField(default=0)
    spent_bytes_out, spent_tokens, spent_microusd = _amount(), _amount(), _amount()
    reserved_bytes_out, reserved_tokens, reserved_microusd = _amount(), _amount(), _amount()

    created_by = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    end_reason = models.CharField(max_length=16, choices=TokenEnd, blank=True, default="")
    ended_by = models.CharField(max_length=64, blank=True, default="")
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001
    request_digest = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("tenant", "sandbox_id", "-created_at", "-id"), name="tenants_scopedtoken_page"),
            # What is voided when a sandbox ends, a key is revoked or a tenant suspended: the few that still count.
            models.Index(fields=("sandbox_id",), condition=Q(ended_at=None), name="tenants_scopedtoken_sandbox"),
            models.Index(
                fields=("tenant", "created_by"), condition=Q(ended_at=None), name="tenants_scopedtoken_issuer"
            ),
            models.Index(fields=("expires_at",), name="tenants_scopedtoken_old"),
        )
        constraints = (
            models.UniqueConstraint(fields=("tenant", "idempotency_key"), name="tenants_scopedtoken_idempotency"),
            models.CheckConstraint(
                condition=(~Q(sandbox_id="") & Q(run="", generation__gte=1)) | (Q(sandbox_id="") & ~Q(run="")),
                name="tenants_scopedtoken_bound",
            ),
            models.CheckConstraint(
                condition=Q(max_uses=None) | Q(uses__lte=models.F("max_uses")), name="tenants_scopedtoken_uses"
            ),
        )

    def __str__(self) -> str:
        return f"{self.id} for {self.service}"


class TokenUse(models.Model):
    """One redemption that is under way, and what it reserved. Its deletion settles it, exactly once.

    A row that outlives the longest call is of a process that died; it is settled by what was reserved.
    """

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    token = models.ForeignKey(ScopedToken, on_delete=models.CASCADE, related_name="uses_under_way")
    at = models.DateTimeField(default=timezone.now, db_index=True)
    method = models.CharField(max_length=16)
    path = models.CharField(max_length=300)
    bytes_out, tokens, microusd = _amount(), _amount(), _amount()

    def __str__(self) -> str:
        return f"use of {self.token_id}"
