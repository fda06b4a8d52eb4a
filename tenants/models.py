"""Tenants and what belongs to them. Models hold data and rules on it; changes go through `actions` and `quota`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar
from uuid import uuid4

from django.contrib.auth.models import AbstractUser
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone
from django_scopes import get_scope, scopes_disabled
from django_scopes.manager import DisabledQuerySet

from corekit.ids import new_event_id, new_key_id
from corekit.tiers import TIERS
from tenants.states import TenantState

if TYPE_CHECKING:
    from corekit.actor import Actor

Owned = TypeVar("Owned", bound=models.Model)

SLUG_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


class User(AbstractUser):
    """A person who signs in. Staff operate the platform; everybody else has memberships."""


class Tenant(models.Model):
    """One customer of the platform. Nothing of it is visible to another one."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    name = models.CharField(max_length=100)
    slug = models.CharField(
        max_length=63,
        unique=True,
        validators=[RegexValidator(rf"\A{SLUG_PATTERN}\Z", "Use a-z, 0-9 and dashes inside.")],
    )
    state = models.CharField(max_length=16, choices=TenantState, default=TenantState.ACTIVE)
    state_changed_at = models.DateTimeField(default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("slug",)
        constraints = (
            models.CheckConstraint(condition=models.Q(state__in=TenantState.values), name="tenants_tenant_state"),
        )

    def __str__(self) -> str:
        return self.name


class TenantManager(models.Manager[Owned]):
    """Reads inside `django_scopes.scope(tenant=…)` only; outside it fails, so that a forgotten filter can't leak."""

    def get_queryset(self) -> models.QuerySet[Owned]:
        """Return the rows of the scope's tenant, all where scopes are disabled, or a query set that only fails."""
        scope = get_scope()
        if not scope.get("_enabled", True):
            return super().get_queryset()
        if "tenant" not in scope:
            failing: models.QuerySet[Owned] = DisabledQuerySet(self.model, using=self._db, missing_scopes={"tenant"})
            return failing
        return super().get_queryset().filter(tenant=scope["tenant"])


class TenantOwned(models.Model):
    """Base of everything with a `tenant`."""

    objects = TenantManager()

    class Meta:
        abstract = True

    @classmethod
    def visible_to(cls, actor: Actor) -> models.QuerySet[Self]:
        """Return the rows that an actor may see. This is the door: another tenant's row is as absent as no row."""
        with scopes_disabled():
            rows = cls.objects.all()
        if actor.tenant_id is not None:
            return rows.filter(tenant=actor.tenant_id)
        return rows if actor.has("*") else rows.none()

    @classmethod
    def everywhere(cls) -> models.QuerySet[Self]:
        """Return the rows of all tenants: for the platform's own work, never to answer a caller."""
        with scopes_disabled():
            return cls.objects.all()


class Role(models.TextChoices):
    """What a member may do; `policy.ROLE_SCOPES` says it in scopes."""

    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    DEVELOPER = "developer", "Developer"
    VIEWER = "viewer", "Viewer"


class Membership(TenantOwned):
    """A person's place in a tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("tenant", "user"), name="tenants_membership_once"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="tenants_membership_role"),
        )

    def __str__(self) -> str:
        return f"{self.user_id} {self.role}"


class ApiKey(TenantOwned):
    """A key of a program. Its text is shown once and never stored; `hash` finds it again."""

    id = models.CharField("key id", max_length=16, primary_key=True, default=new_key_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    hash = models.CharField(max_length=64, unique=True, editable=False)
    prefix = models.CharField(max_length=12, editable=False)
    scopes = models.JSONField(default=list)
    created_by = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ("-created_at", "id")
        indexes = (models.Index(fields=("tenant", "-created_at"), name="tenants_apikey_list"),)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


def _counter() -> models.PositiveBigIntegerField[int, int]:
    return models.PositiveBigIntegerField(default=0, editable=False)


class Quota(TenantOwned):
    """What a tenant may use at a time, and the counters of what it uses.

    The counters move only together with a Reservation, in one transaction. Units: thousandths of a CPU, MiB, s.
    """

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True, related_name="quota")

    max_sandboxes = models.PositiveIntegerField(default=50)
    max_cpu_milli = models.PositiveBigIntegerField(default=20_000)
    max_memory_mib = models.PositiveBigIntegerField(default=40 * 1024)
    max_disk_mib = models.PositiveBigIntegerField(default=100 * 1024)
    max_request_cpu_milli = models.PositiveBigIntegerField(default=10_000)
    max_request_memory_mib = models.PositiveBigIntegerField(default=20 * 1024)
    max_lifetime_s = models.PositiveIntegerField(default=24 * 3600, validators=[MinValueValidator(1)])
    creates_per_minute = models.PositiveIntegerField(
        default=600, validators=[MinValueValidator(1), MaxValueValidator(1_000_000)]
    )

    used_sandboxes = models.PositiveIntegerField(default=0, editable=False)
    used_cpu_milli = _counter()
    used_memory_mib = _counter()
    used_disk_mib = _counter()
    used_request_cpu_milli = _counter()
    used_request_memory_mib = _counter()
    # When the next create would be allowed if they came evenly spaced, in µs since 1970.
    next_create_us = models.BigIntegerField(default=0, editable=False)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=models.Q(creates_per_minute__gte=1) & models.Q(max_lifetime_s__gte=1),
                name="tenants_quota_rates_positive",
                violation_error_message="creates_per_minute and max_lifetime_s must be 1 or more.",
            ),
            models.CheckConstraint(
                condition=models.Q(used_sandboxes__gte=0)
                & models.Q(used_cpu_milli__gte=0)
                & models.Q(used_memory_mib__gte=0)
                & models.Q(used_disk_mib__gte=0)
                & models.Q(used_request_cpu_milli__gte=0)
                & models.Q(used_request_memory_mib__gte=0),
                name="tenants_quota_used_not_negative",
            ),
        )

    def __str__(self) -> str:
        return f"quota of {self.tenant_id}"


class LimitRange(TenantOwned):
    """What one sandbox gets when nobody asks, and the bounds when somebody does. `min_tier` "" is no bound."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True, related_name="limit_range")

    default_cpu_milli = models.PositiveIntegerField(default=500)
    default_memory_mib = models.PositiveIntegerField(default=512)
    default_disk_mib = models.PositiveIntegerField(default=1024)
    default_request_cpu_milli = models.PositiveIntegerField(default=100)
    default_request_memory_mib = models.PositiveIntegerField(default=128)
    min_cpu_milli = models.PositiveIntegerField(default=50)
    min_memory_mib = models.PositiveIntegerField(default=64)
    min_disk_mib = models.PositiveIntegerField(default=64)
    max_cpu_milli = models.PositiveIntegerField(default=2000)
    max_memory_mib = models.PositiveIntegerField(default=2048)
    max_disk_mib = models.PositiveIntegerField(default=10 * 1024)
    min_tier = models.CharField(max_length=16, choices=[(tier, tier) for tier in TIERS], blank=True, default="")

    class Meta:
        constraints = tuple(
            models.CheckConstraint(
                condition=models.Q(**{f"min_{resource}__gte": 1})
                & models.Q(**{f"min_{resource}__lte": models.F(f"default_{resource}")})
                & models.Q(**{f"default_{resource}__lte": models.F(f"max_{resource}")}),
                name=f"tenants_limitrange_{resource}",
                violation_error_message=f"min_, default_ and max_{resource} must be 1 or more, in this order.",
            )
            for resource in ("cpu_milli", "memory_mib", "disk_mib")
        )

    def __str__(self) -> str:
        return f"limit range of {self.tenant_id}"


class NetworkPolicy(models.Model):
    """Which hosts sandboxes may reach, under a name that others use; the platform's own when it has no tenant.

    `spec` is what was asked for, checked and in its canonical form (`networks.specs`). A deleted policy keeps its row:
    what runs with it goes on under it, while its name is free again.
    """

    id = models.CharField(max_length=32, primary_key=True, default=new_event_id, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=63)
    version = models.PositiveIntegerField(default=1)
    spec = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_by = models.CharField(max_length=64, blank=True, default="")
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name_plural = "network policies"
        ordering = ("name", "id")
        indexes = (models.Index(fields=("tenant", "name", "id"), name="tenants_networkpolicy_list"),)
        constraints = (
            models.UniqueConstraint(
                fields=("name",),
                condition=models.Q(tenant=None, deleted_at=None),
                name="tenants_networkpolicy_platform_name",
            ),
            models.UniqueConstraint(
                fields=("tenant", "name"),
                condition=models.Q(tenant__isnull=False, deleted_at=None),
                name="tenants_networkpolicy_tenant_name",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def visible_to(cls, actor: Actor) -> models.QuerySet[NetworkPolicy]:
        """Return the platform's policies and the tenant's own, for operators all; never a deleted one."""
        rows = cls.objects.filter(deleted_at=None)
        if actor.tenant_id is None and actor.has("*"):
            return rows
        return rows.filter(models.Q(tenant=None) | models.Q(tenant=actor.tenant_id))


class NetworkPolicyVersion(models.Model):
    """What a policy was from one version to the next. Rows are added with each change, and never changed."""

    policy = models.ForeignKey(NetworkPolicy, on_delete=models.CASCADE, related_name="versions")
    version = models.PositiveIntegerField()
    spec = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ("-version",)
        constraints = (models.UniqueConstraint(fields=("policy", "version"), name="tenants_networkpolicyversion_once"),)

    def __str__(self) -> str:
        return f"{self.policy_id} version {self.version}"


class TenantNetwork(TenantOwned):
    """What a tenant's sandboxes get when nobody asks, and what none of them can go beyond.

    Without a row there is no default, so that the ceiling alone counts; a ceiling of None is the platform's policy
    `restricted`. The ceiling is a policy of the platform, so that no tenant can raise its own; `public_internet` opens
    it for every public name and address.
    `private_ranges` are special addresses that an operator granted.
    """

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True, related_name="network")
    # A tenant is erased with its policies; alone, a policy that is in use here stays.
    default = models.ForeignKey(NetworkPolicy, null=True, blank=True, on_delete=models.RESTRICT, related_name="+")
    ceiling = models.ForeignKey(NetworkPolicy, null=True, blank=True, on_delete=models.RESTRICT, related_name="+")
    public_internet = models.BooleanField(default=False)
    private_ranges = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"network of {self.tenant_id}"


class PlatformNetwork(models.Model):
    """What no sandbox of any tenant may reach, whatever a policy says. There is one row, or none yet."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    deny = models.JSONField(default=list)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(id=1), name="tenants_platformnetwork_one"),)

    def __str__(self) -> str:
        return "network of the platform"


class NetworkChange(models.Model):
    """A change of policies that what runs has still to follow (`networks.following`)."""

    tenant_id = models.UUIDField(null=True)
    policy = models.CharField(max_length=63, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.policy}"


class Bundle(models.Model):
    """Hosts that belong together under a name: `@python` in a policy stands for the entries of the bundle `python`.

    `private` are addresses that its hosts have on the operator's own network and that sandboxes may reach for it.
    """

    name = models.CharField(max_length=32, primary_key=True)
    entries = models.JSONField(default=list)
    private = models.JSONField(default=list)
    source = models.CharField(max_length=200, blank=True, default="")
    updated_at = models.DateTimeField(null=True, blank=True, editable=False)
    updated_by = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return f"@{self.name}"


class ReservationState(models.TextChoices):
    """A reservation is made before a sandbox starts, committed when it runs, and parked while it is paused."""

    RESERVED = "reserved", "Reserved"
    COMMITTED = "committed", "Committed"
    PARKED = "parked", "Parked"


class Reservation(TenantOwned):
    """One sandbox's share of its tenant's counters. The row's deletion gives the share back, exactly once.

    `parked_…` is what a paused sandbox has given back for now and takes again when it goes on: it is not counted.
    """

    sandbox_id = models.CharField(max_length=64, primary_key=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="reservations")
    sandboxes = models.PositiveIntegerField()
    cpu_milli = models.PositiveBigIntegerField()
    memory_mib = models.PositiveBigIntegerField()
    disk_mib = models.PositiveBigIntegerField()
    request_cpu_milli = models.PositiveBigIntegerField(default=0)
    request_memory_mib = models.PositiveBigIntegerField(default=0)
    parked_sandboxes = models.PositiveIntegerField(default=0)
    parked_cpu_milli = models.PositiveBigIntegerField(default=0)
    parked_request_cpu_milli = models.PositiveBigIntegerField(default=0)
    state = models.CharField(max_length=16, choices=ReservationState, default=ReservationState.RESERVED)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("created_at", "sandbox_id")
        indexes = (models.Index(fields=("tenant", "created_at"), name="tenants_reservation_list"),)
        constraints = (
            models.CheckConstraint(
                condition=models.Q(state__in=ReservationState.values), name="tenants_reservation_state"
            ),
        )

    def __str__(self) -> str:
        return f"{self.sandbox_id} {self.state}"


import tenants.identitymodels  # noqa: E402
import tenants.secretmodels  # noqa: E402  (its classes build on those above)
import tenants.tokenmodels  # noqa: E402, F401
