"""The tenants in Django's admin. Actions stay the way to change things; what needs one is read only here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from tenants.identitymodels import IdentityKey
from tenants.models import (
    ApiKey,
    Bundle,
    LimitRange,
    Membership,
    NetworkChange,
    NetworkPolicy,
    NetworkPolicyVersion,
    PlatformNetwork,
    Quota,
    Reservation,
    Tenant,
    TenantNetwork,
    User,
)
from tenants.secretmodels import MasterKey, SealedValue, Secret, SecretVersion, TenantKey
from tenants.tokenmodels import BrokerService, ScopedToken, TokenUse

if TYPE_CHECKING:
    from django.db import models
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

admin.site.register(User, UserAdmin)


class ReadOnlyAdmin(ModelAdmin):
    """Rows that may be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Adding goes through an action."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Changing goes through an action."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Deleting goes through an action."""
        return False


class OwnedAdmin(ReadOnlyAdmin):
    """Rows of all tenants: the admin is for the platform's operators."""

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        """Return the rows of all tenants."""
        rows: models.QuerySet[Any] = self.model.everywhere()
        return rows


@admin.register(Tenant)
class TenantAdmin(ReadOnlyAdmin):
    """Tenants."""

    list_display = ("slug", "name", "state", "created_at")
    search_fields = ("slug", "name")


@admin.register(Membership)
class MembershipAdmin(OwnedAdmin):
    """Members."""

    list_display = ("tenant", "user", "role")


@admin.register(ApiKey)
class ApiKeyAdmin(OwnedAdmin):
    """API keys, without anything that could open something."""

    list_display = ("id", "tenant", "name", "prefix", "expires_at", "last_used_at", "revoked_at")
    exclude = ("hash",)


@admin.register(Quota)
class QuotaAdmin(OwnedAdmin):
    """Quotas and what is used of them."""

    list_display = ("tenant", "used_sandboxes", "max_sandboxes", "used_cpu_milli", "max_cpu_milli")


@admin.register(LimitRange)
class LimitRangeAdmin(OwnedAdmin):
    """Bounds for one sandbox."""

    list_display = ("tenant", "default_cpu_milli", "max_cpu_milli", "default_memory_mib", "max_memory_mib")


@admin.register(Reservation)
class ReservationAdmin(OwnedAdmin):
    """Shares of running sandboxes."""

    list_display = ("sandbox_id", "tenant", "state", "created_at")


@admin.register(NetworkPolicy)
class NetworkPolicyAdmin(ReadOnlyAdmin):
    """Network policies, deleted ones too."""

    list_display = ("name", "tenant", "version", "updated_at", "updated_by", "deleted_at")


@admin.register(NetworkPolicyVersion)
class NetworkPolicyVersionAdmin(ReadOnlyAdmin):
    """What network policies were, version by version."""

    list_display = ("policy", "version", "created_at", "created_by")
    list_select_related = ("policy",)
    ordering = ("-created_at", "-pk")


@admin.register(NetworkChange)
class NetworkChangeAdmin(ReadOnlyAdmin):
    """Changes of network policies that what runs has still to follow."""

    list_display = ("tenant_id", "policy", "created_at")
    ordering = ("pk",)


@admin.register(TenantNetwork)
class TenantNetworkAdmin(OwnedAdmin):
    """Defaults and ceilings."""

    list_display = ("tenant", "default", "ceiling", "public_internet", "private_ranges")


@admin.register(PlatformNetwork)
class PlatformNetworkAdmin(ReadOnlyAdmin):
    """What no sandbox may reach."""

    list_display = ("deny", "updated_at")


@admin.register(Bundle)
class BundleAdmin(ReadOnlyAdmin):
    """Bundles of hosts."""

    list_display = ("name", "entries", "private", "source", "updated_at")


@admin.register(BrokerService)
class BrokerServiceAdmin(ReadOnlyAdmin):
    """Services that the broker reaches."""

    list_display = ("name", "tenant", "kind", "base_url", "slot", "private", "version", "updated_at")


@admin.register(ScopedToken)
class ScopedTokenAdmin(OwnedAdmin):
    """Scoped tokens, without anything that could open something."""

    list_display = (
        "id",
        "tenant",
        "sandbox_id",
        "service",
        "secret_name",
        "uses",
        "max_uses",
        "expires_at",
        "ended_at",
    )
    exclude = ("hash",)


@admin.register(TokenUse)
class TokenUseAdmin(ReadOnlyAdmin):
    """Uses of scoped tokens that are under way."""

    list_display = ("token_id", "at", "method", "path")
    ordering = ("-at", "-pk")


@admin.register(Secret)
class SecretAdmin(OwnedAdmin):
    """Secrets: which there are, and where their values lie."""

    list_display = ("name", "tenant", "vault", "state", "current_version", "updated_at", "deleted_at")


@admin.register(SecretVersion)
class SecretVersionAdmin(ReadOnlyAdmin):
    """The versions that secrets had."""

    list_display = ("secret_id", "number", "created_at", "created_by")
    ordering = ("-created_at", "-pk")


@admin.register(SealedValue)
class SealedValueAdmin(OwnedAdmin):
    """What the embedded vault keeps, without what is sealed."""

    list_display = ("secret_id", "tenant", "version", "enabled", "created_at", "deleted_at")
    exclude = ("data_key", "sealed")


@admin.register(TenantKey)
class TenantKeyAdmin(OwnedAdmin):
    """Which master key seals the key of which tenant."""

    list_display = ("tenant", "master_id", "created_at", "rewrapped_at")
    exclude = ("sealed",)


@admin.register(MasterKey)
class MasterKeyAdmin(ReadOnlyAdmin):
    """Master keys that were in use, by their ids."""

    list_display = ("id", "created_at")
    exclude = ("sentinel",)


@admin.register(IdentityKey)
class IdentityKeyAdmin(ReadOnlyAdmin):
    """Keys that sign workload identities, without their private halves."""

    list_display = ("id", "signs_from", "published_until", "created_at")
    exclude = ("private",)
