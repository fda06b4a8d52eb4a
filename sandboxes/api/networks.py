"""What the REST API takes and answers about the network of a sandbox, and about what is put into its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers

from corekit.web.fields import Body, Text
from tenants import injection

if TYPE_CHECKING:
    from sandboxes.models import Sandbox

    Plain = serializers.Serializer[Any]
    Map = serializers.DictField
else:
    Plain = serializers.Serializer
    Map = serializers.DictField

MAX_POLICY = 63
RULES = "Headers that are set on requests to a host; values may name `${secrets.NAME}` and `${identity.NAME}`."


class RulesField(Map):
    """Header rules: `{host: [{"transform": {"headers": {name: value}}, "match": {"methods": […], "paths": […]}}]}`."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the checked rules."""
        return injection.check_rules(data, "rules")


class IdentitiesField(Map):
    """Workload identity tokens: `{name: {"audience": …}}`."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the checked tokens."""
        tokens = {name: _with_type(one) for name, one in data.items()} if isinstance(data, dict) else data
        return injection.check_identities(tokens, "identities")


def _with_type(token: Any) -> Any:
    return {"tokenType": injection.TOKEN_TYPE} | token if isinstance(token, dict) else token


class BindingsField(Map):
    """Placeholders: `{variable: {"secret": name, "hosts": […]}}`."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the checked bindings."""
        return injection.check_bindings(data, "secrets")


class NetworkBody(Body):
    """What a sandbox may reach from now on, and what is put into its requests."""

    policy = Text(max_length=MAX_POLICY, help_text="A network policy's name.")
    rules = RulesField(required=False, help_text=f"{RULES} Without it there are none from now on.")
    secrets = BindingsField(
        required=False, help_text="What the placeholders that it started with stand for; without it as before."
    )


class NetworkSerializer(Plain):
    """What it may reach: under a policy, or as E2B's words say."""

    mode = serializers.CharField(help_text="`none` for its whole life, or `open`: what its policy allows.")
    policy = serializers.CharField(allow_null=True, help_text="null: what `asked` says, under the tenant's ceiling.")
    asked = serializers.DictField(help_text="E2B's `network` without what is secret in it.")
    ingress_ports = serializers.ListField(
        child=serializers.IntegerField(), allow_null=True, help_text="Ports that are reached from outside; null: all."
    )
    version = serializers.IntegerField(help_text="Counts the changes.")
    in_force = serializers.IntegerField(help_text="The version that the node obeys.")
    cut = serializers.BooleanField(help_text="Nothing is let out, for its risk.")
    rules = serializers.DictField(help_text="Headers that are set on requests, by host.")
    secrets = serializers.DictField(help_text="Which secret a placeholder stands for, by its variable.")
    identities = serializers.DictField(help_text="Workload identity tokens, by name.")

    def to_representation(self, instance: Sandbox) -> dict[str, Any]:
        """Return the network of a sandbox."""
        asked = dict(instance.network)
        if instance.allow_internet_access is not None:
            asked["allow_internet_access"] = instance.allow_internet_access
        return {
            "mode": str(instance.network_mode),
            "policy": instance.network_policy or None,
            "asked": asked,
            "ingress_ports": instance.ingress_ports,
            "version": instance.network_version,
            "in_force": instance.network_acked,
            "cut": instance.network_cut,
            "rules": instance.header_rules,
            "secrets": {
                one["variable"]: {"secret": one["secret"], "hosts": one["hosts"]} for one in instance.placeholders
            },
            "identities": {name: {"audience": one["audience"]} for name, one in instance.identities.items()},
        }
