"""The REST API of secrets: everything about them but their values, which go in and never come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.response import Response

from corekit.web.fields import Body, Text
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView
from tenants.secretmodels import Secret, SecretVersion
from tenants.secrets import actions, names, selectors

if TYPE_CHECKING:
    from rest_framework.request import Request

    SecretModel = serializers.ModelSerializer[Secret]
    VersionModel = serializers.ModelSerializer[SecretVersion]
    Plain = serializers.Serializer[Any]
else:
    SecretModel = VersionModel = serializers.ModelSerializer
    Plain = serializers.Serializer

BY_NAME = Order(("name", "id"))
NEWEST = Order(("-number",))
_TAG = "Secrets"
_VALUE_HELP = f"One line of 1 to {names.MAX_VALUE_BYTES} bytes. Nobody reads it back."
_METADATA_HELP = f"What you want to say of it: {names.MAX_METADATA_ENTRIES} texts at most. Not secret."


class SecretSerializer(SecretModel):
    """A secret, without its value."""

    tenant = serializers.SerializerMethodField()
    metadata = serializers.DictField(child=serializers.CharField())

    class Meta:
        model = Secret
        fields = (
            *("id", "tenant", "name", "vault", "entry", "state", "current_version", "metadata"),
            *("created_at", "created_by", "updated_at", "updated_by"),
        )
        read_only_fields = fields

    def get_tenant(self, secret: Secret) -> str:
        """Return whose it is."""
        return secret.tenant_id.hex


class SecretVersionSerializer(VersionModel):
    """A value that a secret has or had: which one, when and by whom."""

    class Meta:
        model = SecretVersion
        fields = ("number", "created_at", "created_by")
        read_only_fields = fields


class VaultsSerializer(Plain):
    """The vaults in which the tenant's secrets may lie."""

    default = serializers.CharField()
    vaults = serializers.ListField(child=serializers.CharField())


class NewVersionBody(Body):
    """A new value of a secret."""

    value = Text(trim_whitespace=False, max_length=names.MAX_VALUE_BYTES, write_only=True, help_text=_VALUE_HELP)
    metadata = serializers.DictField(required=False, help_text=f"{_METADATA_HELP} Without it, what there is stays.")


class NewSecretBody(NewVersionBody):
    """A secret that is to be made."""

    name = Text(max_length=256, help_text="1 to 128 characters of a-z, 0-9, - and _; A-Z becomes a-z.")
    vault = Text(required=False, max_length=63, help_text="One of `/vaults`; without it the default one.")


class Secrets(ApiView):
    """`/secrets`."""

    @documented_list("list_secrets", _TAG, "List secrets", item=SecretSerializer, scope=selectors.READ)
    def get(self, request: Request) -> Response:
        """List the tenant's secrets by name; operators see those of all tenants."""
        return self.page(selectors.secrets_for(self.actor), BY_NAME, SecretSerializer)

    @documented(
        "create_secret",
        _TAG,
        "Create a secret",
        scope=selectors.WRITE,
        body=NewSecretBody,
        answer=SecretSerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Create a secret of the tenant; 409 for a name that is taken."""
        tenant = selectors.tenant_of(self.actor)
        secret = actions.create_secret(actor=self.actor, tenant=tenant, **self.body(NewSecretBody))
        return Response(SecretSerializer(secret).data, status=201)


class OfSecret(ApiView):
    """Base of what hangs on one secret, which its id or its name tells."""

    def secret(self, secret_id: str) -> Secret:
        """Return the secret that the caller may change."""
        return selectors.secret_for(self.actor, secret_id, selectors.WRITE)


class SecretDetail(OfSecret):
    """`/secrets/{secret}`."""

    @documented("get_secret", _TAG, "Show a secret", scope=selectors.READ, answer=SecretSerializer)
    def get(self, request: Request, secret_id: str) -> Response:
        """Return all about a secret but its value."""
        return Response(SecretSerializer(selectors.secret_for(self.actor, secret_id)).data)

    @documented("delete_secret", _TAG, "Delete a secret", scope=selectors.WRITE)
    def delete(self, request: Request, secret_id: str) -> Response:
        """Delete a secret with all its values, for good: from now on nobody gets one."""
        actions.delete_secret(actor=self.actor, secret=self.secret(secret_id))
        return Response(status=204)


class Versions(OfSecret):
    """`/secrets/{secret}/versions`."""

    @documented_list(
        "list_secret_versions",
        _TAG,
        "List the versions of a secret",
        item=SecretVersionSerializer,
        scope=selectors.READ,
    )
    def get(self, request: Request, secret_id: str) -> Response:
        """List when a secret got which value, newest first."""
        rows = selectors.versions_of(selectors.secret_for(self.actor, secret_id))
        return self.page(rows, NEWEST, SecretVersionSerializer)

    @documented(
        "add_secret_version",
        _TAG,
        "Give a secret a new value",
        scope=selectors.WRITE,
        body=NewVersionBody,
        answer=SecretSerializer,
        status=201,
    )
    def post(self, request: Request, secret_id: str) -> Response:
        """Give a secret a new value, which counts from the next use on."""
        found = self.secret(secret_id)
        secret = actions.add_version(actor=self.actor, secret=found, **self.body(NewVersionBody))
        return Response(SecretSerializer(secret).data, status=201)


class Disable(OfSecret):
    """`/secrets/{secret}/disable`."""

    @documented("disable_secret", _TAG, "Disable a secret", scope=selectors.WRITE, answer=SecretSerializer)
    def post(self, request: Request, secret_id: str) -> Response:
        """Give the value to nobody until the secret is enabled again; 409 when it is disabled already."""
        secret = actions.disable_secret(actor=self.actor, secret=self.secret(secret_id))
        return Response(SecretSerializer(secret).data)


class Enable(OfSecret):
    """`/secrets/{secret}/enable`."""

    @documented("enable_secret", _TAG, "Enable a secret", scope=selectors.WRITE, answer=SecretSerializer)
    def post(self, request: Request, secret_id: str) -> Response:
        """Let a disabled secret be used again; 409 when it is not disabled."""
        secret = actions.enable_secret(actor=self.actor, secret=self.secret(secret_id))
        return Response(SecretSerializer(secret).data)


class Vaults(ApiView):
    """`/vaults`."""

    @documented("get_vaults", _TAG, "Show the vaults", scope=selectors.READ, answer=VaultsSerializer)
    def get(self, request: Request) -> Response:
        """Return in which vaults the tenant's secrets may lie; operators see all."""
        return Response(VaultsSerializer(selectors.vaults_for(self.actor)).data)
