"""What the REST API takes and answers about networks.

The fields of a policy are taken as they are: `tenants.networks.specs` says what is wrong with them, by place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from corekit.web.fields import Body, Flag, Text, WholeNumber
from tenants.models import Bundle, NetworkPolicy, NetworkPolicyVersion, PlatformNetwork, TenantNetwork
from tenants.networks.compiling import LIMITS, expanded
from tenants.networks.presets import RESTRICTED

if TYPE_CHECKING:
    from tenants.networks.actions import Saved

    PolicyModel = serializers.ModelSerializer[NetworkPolicy]
    VersionModel = serializers.ModelSerializer[NetworkPolicyVersion]
    BundleModel = serializers.ModelSerializer[Bundle]
    DenyModel = serializers.ModelSerializer[PlatformNetwork]
    Plain = serializers.Serializer[Any]
    TenantNetworkBase = serializers.Serializer[TenantNetwork]
else:
    PolicyModel = VersionModel = BundleModel = DenyModel = serializers.ModelSerializer
    Plain = TenantNetworkBase = serializers.Serializer

MAX_LIST = 2000
_EGRESS_HELP = "`[!]host:ports[/protocol]`, or `@bundle`. An empty list lets nothing through."
_INGRESS_HELP = "Ports that the gateway serves; null serves all, [] none."
_PROXY_HELP = "`http://proxy.internal:8080`, or null."


class FlowLimitsSerializer(Plain):
    """Limits of one sandbox; null is none."""

    flows = serializers.IntegerField(allow_null=True, required=False, help_text="Connections at a time.")
    new_per_s = serializers.IntegerField(allow_null=True, required=False, help_text="New ones per second.")
    bytes_out = serializers.IntegerField(allow_null=True, required=False, help_text="Bytes sent in its whole life.")
    idle_s = serializers.IntegerField(allow_null=True, required=False, help_text="Seconds without a byte.")


class NetworkTlsSerializer(Plain):
    """How TLS is looked at."""

    sni = serializers.CharField(required=False, help_text="`require` that it is the name asked for, or `log`.")
    ech = serializers.CharField(required=False, help_text="`deny` or `allow` hidden names.")


class NetworkSpecSerializer(Plain):
    """What a policy lets through."""

    description = serializers.CharField()
    mode = serializers.CharField(help_text="`deny` what no entry allows, or `allow` every public host.")
    egress = serializers.ListField(child=serializers.CharField(), help_text="In canonical form.")
    written = serializers.ListField(child=serializers.CharField(), help_text="The same, as it was typed.")
    ingress = serializers.ListField(child=serializers.IntegerField(), allow_null=True, help_text=_INGRESS_HELP)
    dns = serializers.BooleanField()
    http_proxy = serializers.CharField(allow_null=True)
    https_proxy = serializers.CharField(allow_null=True)
    via = serializers.CharField(allow_null=True)
    limits = FlowLimitsSerializer()
    tls = NetworkTlsSerializer()


class NetworkPolicySerializer(PolicyModel):
    """A network policy."""

    tenant = serializers.SerializerMethodField()
    spec = NetworkSpecSerializer()

    class Meta:
        model = NetworkPolicy
        fields: tuple[str, ...] = (
            *("id", "tenant", "name", "version", "spec", "created_at", "updated_at", "updated_by"),
        )
        read_only_fields: tuple[str, ...] = fields

    def get_tenant(self, policy: NetworkPolicy) -> str | None:
        """Return whose it is; None for the platform's own."""
        return policy.tenant_id.hex if policy.tenant_id else None


class WholeNetworkPolicySerializer(NetworkPolicySerializer):
    """A network policy with what its bundles stand for now."""

    expanded = serializers.SerializerMethodField()

    class Meta(NetworkPolicySerializer.Meta):
        fields = (*NetworkPolicySerializer.Meta.fields, "expanded")
        read_only_fields = fields

    def get_expanded(self, policy: NetworkPolicy) -> list[str]:
        """Return the entries with those of the bundles in the place of their names."""
        return expanded(policy.spec["egress"])


class NetworkWarningSerializer(Plain):
    """Something that is allowed and may surprise."""

    field = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()


class SavedNetworkPolicySerializer(WholeNetworkPolicySerializer):
    """A network policy as it is now, and what its author should know."""

    warnings = serializers.SerializerMethodField()

    class Meta(NetworkPolicySerializer.Meta):
        fields = (*WholeNetworkPolicySerializer.Meta.fields, "warnings")
        read_only_fields = fields

    @extend_schema_field(NetworkWarningSerializer(many=True))
    def get_warnings(self, policy: NetworkPolicy) -> list[Any]:
        """Return the warnings of this change."""
        return list(NetworkWarningSerializer(self.context["warnings"], many=True).data)


def saved(change: Saved) -> dict[str, Any]:
    """Return the answer about a policy that was created or replaced."""
    shown: dict[str, Any] = SavedNetworkPolicySerializer(change.policy, context={"warnings": change.warnings}).data
    return shown


class NetworkVersionSerializer(VersionModel):
    """What a policy was from one version to the next."""

    spec = NetworkSpecSerializer()

    class Meta:
        model = NetworkPolicyVersion
        fields = ("version", "spec", "created_at", "created_by")
        read_only_fields = fields


class NetworkSpecBody(Body):
    """The fields of a policy, as they are typed."""

    description = serializers.JSONField(required=False, help_text="At most 200 characters.")
    mode = serializers.JSONField(required=False, help_text="`deny` (the default) or `allow`.")
    egress = serializers.JSONField(required=False, help_text=_EGRESS_HELP)
    ingress = serializers.JSONField(required=False, allow_null=True, help_text=_INGRESS_HELP)
    dns = serializers.JSONField(required=False, help_text="true without it.")
    http_proxy = serializers.JSONField(required=False, allow_null=True, help_text=_PROXY_HELP)
    https_proxy = serializers.JSONField(required=False, allow_null=True, help_text=_PROXY_HELP)
    via = serializers.JSONField(
        required=False, allow_null=True, help_text="`host:port` of a proxy of the company; for operators."
    )
    limits = serializers.JSONField(required=False, help_text=f"Some of {', '.join(LIMITS)}; null is none.")
    tls = serializers.JSONField(required=False, help_text="`sni`: `require` or `log`; `ech`: `deny` or `allow`.")


class NewPolicyBody(NetworkSpecBody):
    """A network policy that is to be made."""

    name = Text(max_length=63, help_text="1 to 63 characters of a-z, 0-9 and dashes inside; never changes.")


class ReplacePolicyBody(NetworkSpecBody):
    """What a network policy is to be. What is left out gets its default."""

    version = WholeNumber(minimum=1, help_text="The version that it has; 409 when it has another one.")


class CheckBody(NetworkSpecBody):
    """A policy as it is typed, or the name of one, and a host to try."""

    policy = Text(max_length=63, required=False, help_text="The name of a policy, in place of its fields.")
    host = Text(max_length=300, required=False, help_text="A name or an address; nothing is tried without it.")
    port = WholeNumber(minimum=1, maximum=65_535, default=443)


class NetworkProblemSerializer(Plain):
    """A value that a policy can't have, and where it stands."""

    field = serializers.CharField()
    message = serializers.CharField()


class NetworkAnswerSerializer(Plain):
    """What a policy, the tenant's ceiling and the platform's deny list say about a host."""

    host = serializers.CharField()
    port = serializers.IntegerField()
    allowed = serializers.BooleanField()
    reason = serializers.CharField(help_text="One of the reasons that events have; empty where it is allowed.")
    sentence = serializers.CharField()
    rule = serializers.CharField(help_text="The entry that decided.")
    layer = serializers.CharField(help_text="Whose entry it is: `sandbox` (the policy), `tenant` (its ceiling), …")
    protocols = serializers.ListField(child=serializers.CharField())


class NetworkCheckedSerializer(Plain):
    """Everything that is wrong with a policy, and what it leads to."""

    valid = serializers.BooleanField()
    problems = NetworkProblemSerializer(many=True)
    warnings = NetworkWarningSerializer(many=True)
    spec = NetworkSpecSerializer()
    expanded = serializers.ListField(child=serializers.CharField())
    answer = NetworkAnswerSerializer(allow_null=True, help_text="null without a host, or when the policy is not valid.")


class NetworkBundleSerializer(BundleModel):
    """A name for hosts that belong together."""

    entries = serializers.ListField(child=serializers.CharField())
    private = serializers.ListField(child=serializers.CharField(), help_text="Addresses that are not public.")
    updated_at = serializers.DateTimeField(allow_null=True, help_text="null when nobody has filled it yet.")

    class Meta:
        model = Bundle
        fields = ("name", "entries", "private", "source", "updated_at")
        read_only_fields = fields


def _texts(**options: Any) -> serializers.ListField:
    return serializers.ListField(child=Text(max_length=300), max_length=MAX_LIST, **options)


class BundleBody(Body):
    """What a bundle stands for."""

    entries = _texts(help_text="`host:ports[/protocol]`; [] for nothing.")
    private = _texts(required=False, help_text="Addresses that are not public and may be reached for it.")


class NetworkDenyListSerializer(DenyModel):
    """What no sandbox of any tenant may reach."""

    deny = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = PlatformNetwork
        fields = ("deny", "updated_at")
        read_only_fields = fields


class DenyListBody(Body):
    """What no sandbox of any tenant may reach."""

    deny = _texts(help_text="`host:ports[/protocol]`, without `!`.")


class TenantNetworkSerializer(TenantNetworkBase):
    """What a tenant's sandboxes get when they name no policy, and what none can go beyond."""

    default = serializers.SerializerMethodField(method_name="default_name", help_text="null: the ceiling alone.")
    ceiling = serializers.SerializerMethodField(method_name="ceiling_name")
    public_internet = serializers.BooleanField(help_text="Every public host, but for what the ceiling denies.")
    private_ranges = serializers.ListField(child=serializers.CharField())

    def default_name(self, network: TenantNetwork) -> str | None:
        """Return the policy of sandboxes that name none."""
        return network.default.name if network.default else None

    def ceiling_name(self, network: TenantNetwork) -> str:
        """Return the policy that none can go beyond."""
        return network.ceiling.name if network.ceiling else RESTRICTED


class TenantNetworkBody(Body):
    """What to change."""

    default = Text(
        max_length=63, required=False, allow_null=True, help_text="A policy's name; null is the ceiling alone."
    )
    ceiling = Text(
        max_length=63, required=False, allow_null=True, help_text="A policy of the platform; null is `restricted`."
    )
    public_internet = Flag(required=False)
    private_ranges = _texts(required=False)
