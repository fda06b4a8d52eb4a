"""Secrets without their values, and what the embedded vault keeps: sealed values, sealed keys, nothing readable."""

from __future__ import annotations

import re

from django.db import models
from django.utils import timezone

from corekit.ids import new_event_id
from tenants.models import Tenant, TenantOwned


def new_secret_id() -> str:
    """Return a new secret's id: `sec_` and 32 hex characters."""
    return f"sec_{new_event_id()}"


NAME = re.compile(r"[a-z0-9_-]{1,128}")


def normal_name(name: str) -> str:
    """Return a secret's name as it is stored: without blanks around it, and in lower case."""
    return name.strip().lower()


class SecretState(models.TextChoices):
    """A disabled secret keeps its value and gives it to nobody. A deleted one has none any more."""

    ACTIVE = "active", "Active"
    DISABLED = "disabled", "Disabled"
    DELETED = "deleted", "Deleted"


class Secret(TenantOwned):
    """A secret by its name: where its value is, and never the value.

    `revision` grows with every change, so that who keeps a value for a while sees that it is another one. `entry`
    names an entry that an operator made in the vault. A deleted secret keeps its row, and its name is free again;
    `purged_at` says that its vault has erased it too.
    """

    id = models.CharField(max_length=40, primary_key=True, default=new_secret_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=128)
    vault = models.CharField(max_length=63)
    entry = models.CharField(max_length=127, blank=True, default="")
    state = models.CharField(max_length=16, choices=SecretState, default=SecretState.ACTIVE)
    current_version = models.PositiveIntegerField(default=1)
    revision = models.PositiveIntegerField(default=1)
    metadata = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=64, blank=True, default="")
    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_by = models.CharField(max_length=64, blank=True, default="")
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    purged_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("name", "id")
        indexes = (models.Index(fields=("tenant", "name", "id"), name="tenants_secret_list"),)
        constraints = (
            models.UniqueConstraint(
                fields=("tenant", "name"), condition=models.Q(deleted_at=None), name="tenants_secret_name"
            ),
            models.CheckConstraint(condition=models.Q(state__in=SecretState.values), name="tenants_secret_state"),
        )

    def __str__(self) -> str:
        return self.name


class SecretVersion(models.Model):
    """One value that a secret had, or has: what the vault calls it, and who wrote it when."""

    secret = models.ForeignKey(Secret, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    vault_version = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ("-number",)
        constraints = (models.UniqueConstraint(fields=("secret", "number"), name="tenants_secretversion_once"),)

    def __str__(self) -> str:
        return f"{self.secret_id} version {self.number}"


class TenantKey(TenantOwned):
    """The key under which a tenant's values are sealed, itself sealed under the master key `master_id`.

    Without it nobody can read any of the tenant's values again, not even from a backup of the other tables.
    """

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True, related_name="+")
    sealed = models.BinaryField()
    master_id = models.CharField(max_length=16, db_index=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    rewrapped_at = models.DateTimeField(null=True, blank=True, editable=False)

    def __str__(self) -> str:
        return f"key of {self.tenant_id} under {self.master_id}"


class SealedValue(TenantOwned):
    """One value in the embedded vault, under a key of its own, which is sealed under the tenant's."""

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    secret_id = models.CharField(max_length=32)
    name = models.CharField(max_length=128)
    version = models.CharField(max_length=32, default=new_event_id, editable=False)
    data_key = models.BinaryField()
    sealed = models.BinaryField()
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("tenant", "secret_id", "version"), name="tenants_sealedvalue_once"),
        )

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class MasterKey(models.Model):
    """A master key that was in use here, known by its id: a text sealed under it, to see at start that it still opens.

    The key itself lies outside of the database.
    """

    id = models.CharField(max_length=16, primary_key=True, editable=False)
    sentinel = models.BinaryField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.id
