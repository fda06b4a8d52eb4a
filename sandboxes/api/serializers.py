"""What the REST API takes and answers about sandboxes, executions, templates and nodes."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rest_framework import serializers

from audit import judging
from audit.api.risk import LevelSerializer
from corekit.tiers import LEVELS, TIERS, named
from corekit.web.fields import Body, Flag, Text, WholeNumber
from corekit.web.views import PageQuery
from sandboxes.api.networks import MAX_POLICY, RULES, BindingsField, IdentitiesField, NetworkSerializer, RulesField
from sandboxes.e2b import fields
from sandboxes.executions import DEFAULT_S, INTERPRETERS, LONGEST_S, MOST_CODE_BYTES
from sandboxes.isolation import PROFILES, RUNTIMES
from sandboxes.models import Execution, Node, Sandbox, Template
from sandboxes.states import EndReason, ExecutionState, SandboxState

if TYPE_CHECKING:
    from datetime import datetime

    SandboxModel = serializers.ModelSerializer[Sandbox]
    TemplateModel = serializers.ModelSerializer[Template]
    NodeModel = serializers.ModelSerializer[Node]
    ExecutionModel = serializers.ModelSerializer[Execution]
    Plain = serializers.Serializer[Any]
    TextMap = serializers.DictField
else:
    SandboxModel = TemplateModel = NodeModel = ExecutionModel = serializers.ModelSerializer
    Plain = serializers.Serializer
    TextMap = serializers.DictField

_LIMITS = ("cpu_milli", "memory_mib", "disk_mib", "pids")
_MAX_PORT = 65535
DEFAULT_TIMEOUT_S = 300


class MetadataField(TextMap):
    """Labels: a flat map of texts."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """Return the checked map."""
        return fields.metadata({"metadata": data})


class EnvironmentField(TextMap):
    """Environment variables. Errors never repeat a value."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """Return the checked map."""
        return fields.environment({"env": data}, "env")


class LimitsBody(Body):
    """What a sandbox gets, within the tenant's limit range; the template's choice for what is not given."""

    cpu_milli = WholeNumber(minimum=1, required=False, help_text="Thousandths of a CPU.")
    memory_mib = WholeNumber(minimum=1, required=False)
    disk_mib = WholeNumber(minimum=1, required=False)


class LifecycleBody(Body):
    """What happens at the end of its time, and whether requests to a port wake it."""

    on_timeout = serializers.ChoiceField(choices=("kill", "pause"), default="kill")
    auto_resume = Flag(default=False)


class IngressBody(Body):
    """How requests reach its ports."""

    public = Flag(default=True, help_text="false: only with the traffic token.")
    mask_host = Text(required=False, max_length=fields.MAX_HOST, help_text="The Host that its servers see.")
    https_ports = serializers.ListField(
        child=WholeNumber(minimum=1, maximum=_MAX_PORT), required=False, max_length=fields.MAX_PORTS
    )

    def validate_mask_host(self, value: str) -> str:
        """Check the host name."""
        return fields.mask_host({"mask_host": value}, "mask_host", inside="ingress")

    def validate_https_ports(self, value: list[int]) -> tuple[int, ...]:
        """Check the ports."""
        return fields.ports({"https_ports": value}, "https_ports", inside="ingress")


class NewSandboxBody(Body):
    """A sandbox that is to be made."""

    template = Text(max_length=fields.MAX_NAME, default="base", help_text="Id, name or tenant/name.")
    timeout = WholeNumber(minimum=1, default=DEFAULT_TIMEOUT_S, help_text="Seconds from when it is ready.")
    tier = Text(required=False, max_length=32, help_text=f"The template's or a better one of {', '.join(TIERS)}.")
    profile = Text(required=False, max_length=32, help_text=f"One of {', '.join(PROFILES)}.")
    runtime = Text(required=False, max_length=32, help_text=f"One of {', '.join(RUNTIMES)}; tier container only.")
    limits = LimitsBody(required=False)
    lifecycle = LifecycleBody(required=False)
    ingress = IngressBody(required=False)
    metadata = MetadataField(child=serializers.CharField(), required=False)
    env = EnvironmentField(child=serializers.CharField(), required=False, help_text="Handed on, never kept.")
    network = Text(
        required=False, max_length=MAX_POLICY, help_text="A network policy's name; the tenant's default without it."
    )
    rules = RulesField(required=False, help_text=RULES)
    secrets = BindingsField(
        required=False,
        help_text="Variables that hold a placeholder, which becomes a secret on its way to the hosts of its own.",
    )
    identities = IdentitiesField(required=False, help_text="Workload identity tokens that rules may name.")


class TimeoutBody(Body):
    """For how long a sandbox goes on at least."""

    timeout = WholeNumber(minimum=1, help_text="Seconds from now.")


class WakeBody(Body):
    """For how long a paused sandbox goes on."""

    timeout = WholeNumber(minimum=1, default=DEFAULT_TIMEOUT_S, help_text="Seconds from now.")


class OffboardBody(Body):
    """The confirmation that a tenant may be erased."""

    confirm = Text(max_length=63, help_text="The tenant's slug once more.")


class NothingBody(Body):
    """An empty object, or no body."""


class SandboxLimitsSerializer(Plain):
    """What a sandbox got."""

    cpu_milli = serializers.IntegerField()
    memory_mib = serializers.IntegerField()
    disk_mib = serializers.IntegerField()
    pids = serializers.IntegerField()


class IngressSerializer(Plain):
    """How requests reach its ports."""

    public = serializers.BooleanField(source="allow_public_traffic")
    mask_host = serializers.CharField(source="mask_request_host")
    https_ports = serializers.ListField(child=serializers.IntegerField())


_NETWORK = NetworkSerializer()


class LifecycleSerializer(Plain):
    """What happens at the end of its time."""

    on_timeout = serializers.SerializerMethodField()
    auto_resume = serializers.BooleanField()

    def get_on_timeout(self, sandbox: Sandbox) -> str:
        """Return `pause` or `kill`."""
        return "pause" if sandbox.auto_pause else "kill"


class SandboxSerializer(SandboxModel):
    """A sandbox, also after its end. Its environment variables are kept nowhere."""

    tenant = serializers.SerializerMethodField()
    template = serializers.CharField(source="template_name", read_only=True)
    template_id = serializers.CharField(read_only=True, allow_null=True)
    build = serializers.CharField(source="build_id", read_only=True)
    node = serializers.CharField(source="node_id", read_only=True)
    state = serializers.CharField(read_only=True, help_text=f"One of {', '.join(SandboxState.values)}.")
    end_reason = serializers.CharField(read_only=True, help_text=f"One of {', '.join(EndReason.values)}, or empty.")
    limits = SandboxLimitsSerializer(source="*", read_only=True)
    lifecycle = LifecycleSerializer(source="*", read_only=True)
    ingress = IngressSerializer(source="*", read_only=True)
    network = NetworkSerializer(source="*", read_only=True)
    metadata = serializers.DictField(child=serializers.CharField(), read_only=True)
    timeout = serializers.IntegerField(source="timeout_s", read_only=True)

    class Meta:
        model = Sandbox
        fields = (
            *("id", "tenant", "state", "template", "template_id", "build", "tier", "profile", "runtime", "node"),
            *("limits", "lifecycle", "ingress", "network", "metadata", "timeout", "created_by", "created_at"),
            *("started_at", "end_at", "paused_at", "ended_at", "end_reason"),
        )
        read_only_fields = fields

    def get_tenant(self, sandbox: Sandbox) -> str:
        """Return whose it is. A row that was just made holds the id as it was given."""
        owner: UUID | str = sandbox.tenant_id
        return owner.hex if isinstance(owner, UUID) else owner

    def to_representation(self, instance: Sandbox) -> dict[str, Any]:
        """Return what the fields above say, written out: pages of a hundred are read all the time."""
        return {
            "id": instance.pk,
            "tenant": self.get_tenant(instance),
            "state": str(instance.state),
            "template": instance.template_name,
            "template_id": instance.template_id,
            "build": instance.build_id,
            "tier": instance.tier,
            "profile": instance.profile,
            "runtime": instance.runtime,
            "node": instance.node_id,
            "limits": {name: getattr(instance, name) for name in _LIMITS},
            "lifecycle": {
                "on_timeout": "pause" if instance.auto_pause else "kill",
                "auto_resume": instance.auto_resume,
            },
            "ingress": {
                "public": instance.allow_public_traffic,
                "mask_host": instance.mask_request_host,
                "https_ports": instance.https_ports,
            },
            "network": _NETWORK.to_representation(instance),
            "metadata": instance.metadata,
            "timeout": instance.timeout_s,
            "created_by": instance.created_by,
            "created_at": _shown(instance.created_at),
            "started_at": _shown(instance.started_at),
            "end_at": _shown(instance.end_at),
            "paused_at": _shown(instance.paused_at),
            "ended_at": _shown(instance.ended_at),
            "end_reason": str(instance.end_reason),
        }


def _shown(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class DetailSerializer(SandboxSerializer):
    """A sandbox and how risky its acts were of late."""

    risk = LevelSerializer(read_only=True, allow_null=True, help_text="null while nothing in it was risky.")

    class Meta(SandboxSerializer.Meta):
        fields = (*SandboxSerializer.Meta.fields, "risk")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]

    def to_representation(self, instance: Sandbox) -> dict[str, Any]:
        """Return the sandbox with its level."""
        level = judging.level_of(judging.SANDBOX, instance.pk)
        return super().to_representation(instance) | {"risk": None if level is None else LevelSerializer(level).data}


class AccessSerializer(Plain):
    """How to reach the inside: send `headers` to `url`, with the guest agent's protocol (E2B envd)."""

    token = serializers.CharField(allow_null=True, help_text="null for callers who may not use sandboxes.")
    url = serializers.CharField()
    headers = serializers.DictField(child=serializers.CharField())
    port_url = serializers.CharField(allow_null=True, help_text="Put the port for `{port}`; null without a domain.")
    traffic_token = serializers.CharField(allow_null=True, help_text="Opens the ports; null while they are public.")


class OpenedSerializer(SandboxSerializer):
    """A sandbox and how to reach its inside."""

    access = AccessSerializer(read_only=True)

    class Meta(SandboxSerializer.Meta):
        fields = (*SandboxSerializer.Meta.fields, "access")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class SandboxFilter(PageQuery):
    """Which sandboxes to list. Without a state: all that have not ended."""

    state = serializers.ChoiceField(choices=(*SandboxState.values, "live", "any"), default="live")
    template = Text(required=False, max_length=fields.MAX_NAME, help_text="Id or name.")
    tier = Text(required=False, max_length=32)
    metadata = Text(required=False, max_length=8192, help_text="`key=value`, URL-encoded, more of them with `&`.")
    started_since = serializers.DateTimeField(required=False)
    started_before = serializers.DateTimeField(required=False)
    tenant_id = serializers.UUIDField(required=False, help_text="For operators: one tenant's sandboxes.")
    order = serializers.ChoiceField(choices=("desc", "asc"), default="desc", help_text="Newest first without it.")


class NewExecutionBody(Body):
    """Code that is to be run, and how."""

    code = Text(max_length=MOST_CODE_BYTES, trim_whitespace=False, help_text=f"At most {MOST_CODE_BYTES} bytes.")
    language = serializers.ChoiceField(choices=tuple(INTERPRETERS), default="python")
    tier = Text(
        required=False,
        max_length=16,
        help_text=f"At least this one of {', '.join(TIERS)} ({', '.join(LEVELS)}). What is too weak is raised.",
    )
    timeout_s = WholeNumber(minimum=1, maximum=LONGEST_S, default=DEFAULT_S, help_text="Seconds that the code may run.")
    template = Text(required=False, max_length=fields.MAX_NAME, help_text="The tier's public one without it.")
    env = EnvironmentField(child=serializers.CharField(), required=False, help_text="Handed on, never kept.")
    network = Text(required=False, max_length=MAX_POLICY, help_text="A network policy's name; `isolated` without it.")

    def validate_tier(self, value: str) -> str:
        """Return the tier's name."""
        found = named(value)
        if found is None:
            raise serializers.ValidationError(f"Must be one of {', '.join((*TIERS, *LEVELS))}.")
        return found


class SeedRiskSerializer(Plain):
    """What the additive rules `seed-v1` say of the same code."""

    score = serializers.IntegerField()
    tier = serializers.CharField()


class CodeRiskSerializer(Plain):
    """The risk of code before it ran, with its reasons."""

    score = serializers.IntegerField(help_text="From 0 to 100.")
    band = serializers.CharField(help_text="low, medium, high or critical.")
    tier = serializers.CharField(help_text=f"One of {', '.join(LEVELS)}: what the code itself asks for.")
    findings = serializers.ListField(child=serializers.DictField())
    ruleset = serializers.CharField()
    unassessable = serializers.CharField(allow_null=True, help_text="Why nobody could judge it.")
    seed_v1 = SeedRiskSerializer()


_EXECUTION_FACTS = (
    *("id", "tenant", "state", "language", "template", "tier", "requested_tier", "floor", "floor_reason", "risk"),
    *("truncated", "exit_code", "reason", "duration_ms", "timeout_s", "sandbox_id"),
    *("created_by", "created_at", "ended_at"),
)


class ExecutionRowSerializer(ExecutionModel):
    """An execution, without what it wrote."""

    tenant = serializers.SerializerMethodField()
    state = serializers.CharField(read_only=True, help_text=f"One of {', '.join(ExecutionState.values)}.")
    template = serializers.CharField(source="template_name", read_only=True)
    requested_tier = serializers.SerializerMethodField()
    floor = serializers.CharField(read_only=True, help_text="The least tier that the code may have.")
    floor_reason = serializers.CharField(read_only=True, help_text="What asked for the tier that it got.")
    risk = CodeRiskSerializer(read_only=True)
    truncated = serializers.BooleanField(read_only=True, help_text="It wrote more than is kept: 1 MiB of each.")
    exit_code = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="null unless it ended by itself; above 128 by a signal."
    )
    reason = serializers.CharField(read_only=True, help_text="Why it failed, or empty.")
    sandbox_id = serializers.SerializerMethodField()

    class Meta:
        model = Execution
        fields: tuple[str, ...] = _EXECUTION_FACTS
        read_only_fields: tuple[str, ...] = _EXECUTION_FACTS

    def get_tenant(self, execution: Execution) -> str:
        """Return whose it is."""
        return execution.tenant_id.hex

    def get_requested_tier(self, execution: Execution) -> str | None:
        """Return the tier that was asked for; None without one."""
        return execution.requested_tier or None

    def get_sandbox_id(self, execution: Execution) -> str | None:
        """Return the sandbox that it ran in; None when there was none."""
        return execution.sandbox_id or None


class ExecutionSerializer(ExecutionRowSerializer):
    """An execution with what it wrote, which is kept for a day."""

    stdout = serializers.SerializerMethodField()
    stderr = serializers.SerializerMethodField()

    class Meta(ExecutionRowSerializer.Meta):
        fields = (*_EXECUTION_FACTS, "stdout", "stderr")
        read_only_fields = fields

    def get_stdout(self, execution: Execution) -> str | None:
        """Return what it wrote; None when that is not kept, or not for the caller."""
        return execution.stdout if execution.output_until else None

    def get_stderr(self, execution: Execution) -> str | None:
        """Return what it wrote to its error output, in the same way."""
        return execution.stderr if execution.output_until else None


class ExecutionFilter(PageQuery):
    """Which executions to list."""

    state = serializers.ChoiceField(choices=ExecutionState.values, required=False)
    tenant_id = serializers.UUIDField(required=False, help_text="For operators: one tenant's executions.")


class AttestationSerializer(Plain):
    """What the host's side found that the sandbox really got, before it was handed out."""

    sandbox = serializers.CharField()
    tier = serializers.CharField()
    profile = serializers.CharField()
    facts = serializers.DictField()


class WindowQuery(serializers.Serializer):  # type: ignore[type-arg]
    """A time window."""

    start = serializers.DateTimeField(required=False, help_text="The last minute without it.")
    end = serializers.DateTimeField(required=False)


class SampleSerializer(Plain):
    """What a sandbox used at a time."""

    at = serializers.DateTimeField()
    cpu_usec = serializers.IntegerField(help_text="CPU time since the start.")
    cpu_milli = serializers.IntegerField()
    memory_bytes = serializers.IntegerField()
    memory_mib = serializers.IntegerField()
    memory_cache_bytes = serializers.IntegerField()
    disk_used_bytes = serializers.IntegerField()
    disk_mib = serializers.IntegerField()


class MetricsSerializer(Plain):
    """Samples, oldest first; one each 5 seconds while it runs."""

    samples = SampleSerializer(many=True)


class TemplateSerializer(TemplateModel):
    """A template. Tier, profile and runtime are a minimum."""

    tenant = serializers.SerializerMethodField()
    build = serializers.CharField(source="build_id", read_only=True)

    class Meta:
        model = Template
        fields = (
            *("id", "name", "tenant", "build", "tier", "profile", "runtime", "cpu_milli", "memory_mib"),
            *("disk_mib", "pids", "created_at", "updated_at"),
        )
        read_only_fields = fields

    def get_tenant(self, template: Template) -> str | None:
        """Return whose it is; None for a public one."""
        return template.tenant_id.hex if template.tenant_id else None


class NodeSerializer(NodeModel):
    """A host that keeps sandboxes."""

    capabilities = serializers.DictField(read_only=True)

    class Meta:
        model = Node
        fields = ("id", "boot_id", "version", "capabilities", "first_seen_at", "last_seen_at")
        read_only_fields = fields
