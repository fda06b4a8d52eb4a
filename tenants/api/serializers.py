"""What the REST API takes and answers about tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers

from corekit import clock
from corekit.tiers import TIERS
from corekit.web.fields import Body, Text, WholeNumber
from tenants import quota
from tenants.actions import MAX_LIMIT, MIN_TIER, RANGE_FIELDS
from tenants.models import ApiKey, Membership, Role, Tenant

if TYPE_CHECKING:
    from tenants.models import LimitRange
    from tenants.quota import Usage

    TenantModel = serializers.ModelSerializer[Tenant]
    MemberModel = serializers.ModelSerializer[Membership]
    KeyModel = serializers.ModelSerializer[ApiKey]
    Plain = serializers.Serializer[Any]
else:
    TenantModel = MemberModel = KeyModel = serializers.ModelSerializer
    Plain = serializers.Serializer

_KEY_FIELDS = (
    *("id", "name", "prefix", "scopes", "created_by", "created_at", "expires_at", "last_used_at", "revoked_at"),
)
_RATES = ("max_lifetime_s", "creates_per_minute")


class TenantSerializer(TenantModel):
    """A tenant."""

    id = serializers.CharField(source="id.hex", read_only=True)

    class Meta:
        model = Tenant
        fields = ("id", "slug", "name", "state", "created_at", "state_changed_at")
        read_only_fields = fields


class NewTenantBody(Body):
    """A tenant that is to be made."""

    slug = Text(max_length=63, help_text="1 to 63 characters of a-z, 0-9 and dashes inside; never changes.")
    name = Text(max_length=100, required=False, help_text="The slug without it.")


class MemberSerializer(MemberModel):
    """A member: an account and what it may do."""

    user_id = serializers.IntegerField(read_only=True)
    username = serializers.CharField(source="user.username", read_only=True)

    class Meta:
        model = Membership
        fields = ("user_id", "username", "role", "created_at")
        read_only_fields = fields


class NewMemberBody(Body):
    """An account that is to become a member."""

    username = Text(max_length=150)
    role = Text(max_length=16, help_text=f"One of {', '.join(Role.values)}.")


class RoleBody(Body):
    """Another role."""

    role = Text(max_length=16, help_text=f"One of {', '.join(Role.values)}.")


class KeySerializer(KeyModel):
    """An API key; its text is shown only when it is made."""

    scopes = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = ApiKey
        fields: tuple[str, ...] = _KEY_FIELDS
        read_only_fields: tuple[str, ...] = _KEY_FIELDS


class NewKeySerializer(KeySerializer):
    """A new API key with its text, which nobody can show again."""

    key = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields = (*_KEY_FIELDS, "key")
        read_only_fields = (*_KEY_FIELDS, "key")


class NewKeyBody(Body):
    """An API key that is to be made."""

    name = Text(max_length=100)
    scopes = serializers.ListField(
        child=Text(max_length=64),
        required=False,
        max_length=64,
        help_text="What an agent backend needs without it.",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, help_text="Never without it.")


def _numbers(names: tuple[str, ...] | list[str]) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
    return {name: WholeNumber(minimum=0, maximum=MAX_LIMIT, required=False) for name in names}


def _whole(names: tuple[str, ...] | list[str]) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
    return {name: serializers.IntegerField() for name in names}


LimitsSerializer = type("LimitsSerializer", (Plain,), _whole([*(f"max_{name}" for name in quota.RESOURCES), *_RATES]))
UsedSerializer = type("UsedSerializer", (Plain,), _whole(quota.RESOURCES))
QuotaBody = type("QuotaBody", (Body,), _numbers([*(f"max_{name}" for name in quota.RESOURCES), *_RATES]))
_BOUNDS = sorted(RANGE_FIELDS - {MIN_TIER})
_TIER_HELP = f"One of {', '.join(TIERS)}, or empty for no bound."
LimitRangeSerializer = type(
    "LimitRangeSerializer", (Plain,), _whole(_BOUNDS) | {MIN_TIER: serializers.CharField(help_text=_TIER_HELP)}
)
LimitRangeBody = type(
    "LimitRangeBody",
    (Body,),
    _numbers(_BOUNDS) | {MIN_TIER: Text(max_length=16, required=False, allow_blank=True, help_text=_TIER_HELP)},
)


class QuotaSerializer(Plain):
    """A tenant's limits and what is used of them. CPU in thousandths, memory and disk in MiB, times in seconds."""

    limits = LimitsSerializer()
    used = UsedSerializer()
    at = serializers.DateTimeField()


def quota_answer(usage: Usage) -> dict[str, Any]:
    """Return the answer about a quota."""
    limits = {f"max_{name}": getattr(usage.allowed, name) for name in quota.RESOURCES}
    return {
        "limits": limits | {name: getattr(usage, name) for name in _RATES},
        "used": {name: getattr(usage.used, name) for name in quota.RESOURCES},
        "at": clock.to_rfc3339(clock.now()),
    }


def limit_range_answer(limits: LimitRange) -> dict[str, int | str]:
    """Return the answer about a limit range."""
    return {name: getattr(limits, name) for name in sorted(RANGE_FIELDS)}
