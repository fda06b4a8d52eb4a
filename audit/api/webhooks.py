"""The REST API of webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework import serializers
from rest_framework.response import Response

from audit import webhooks as actions
from audit.models import Delivery, DeliveryState, Webhook
from corekit.web.fields import Body, Flag, Text, WholeNumber
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView

if TYPE_CHECKING:
    from rest_framework.request import Request

    WebhookModel = serializers.ModelSerializer[Webhook]
    DeliveryModel = serializers.ModelSerializer[Delivery]
else:
    WebhookModel = DeliveryModel = serializers.ModelSerializer

NEWEST = Order(("-created_at", "-id"))
MAX_CODES = 100


class WebhookSerializer(WebhookModel):
    """A place that gets events. Its secret is shown once, when it is made or rotated."""

    tenant = serializers.SerializerMethodField()
    codes = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Webhook
        fields = (
            *("id", "tenant", "url", "description", "codes", "min_score", "enabled", "disabled_reason"),
            *("failing_since", "previous_until", "created_at"),
        )
        read_only_fields = fields

    def get_tenant(self, webhook: Webhook) -> str | None:
        """Return whose it is; None for the platform's own."""
        return webhook.tenant_id.hex if webhook.tenant_id else None


class NewWebhookSerializer(WebhookSerializer):
    """A webhook with its secret, which is shown only now."""

    secret = serializers.SerializerMethodField()

    class Meta:
        model = Webhook
        fields = (*WebhookSerializer.Meta.fields, "secret")
        read_only_fields = fields

    def get_secret(self, webhook: Webhook) -> str:
        """Return the secret in the form of Standard Webhooks."""
        return str(self.context["secret"])


class DeliverySerializer(DeliveryModel):
    """One event on its way to a webhook, and how the last attempt went."""

    state = serializers.CharField(read_only=True, help_text=f"One of {', '.join(DeliveryState.values)}.")

    class Meta:
        model = Delivery
        fields = (
            *("id", "event_id", "code", "test", "state", "attempts", "next_at", "status", "error", "duration_ms"),
            *("created_at", "finished_at"),
        )
        read_only_fields = fields


class NewWebhookBody(Body):
    """What makes a webhook."""

    url = Text(max_length=2000, help_text="https://… that leads to a public address.")
    description = Text(max_length=200, required=False, allow_blank=True)
    codes = serializers.ListField(
        child=Text(max_length=64), max_length=MAX_CODES, required=False, help_text="Event codes; all without any."
    )
    min_score = WholeNumber(minimum=0, maximum=100, required=False, allow_null=True)


class WebhookChanges(NewWebhookBody):
    """What may be changed of a webhook."""

    url = Text(max_length=2000, required=False)
    enabled = Flag(required=False)


class Webhooks(ApiView):
    """`/webhooks`."""

    @documented_list("list_webhooks", "Webhooks", "List webhooks", item=WebhookSerializer, scope=actions.READ)
    def get(self, request: Request) -> Response:
        """List webhooks, newest first: operators see all, everybody else their tenant's."""
        return self.page(actions.webhooks_for(self.actor), NEWEST, WebhookSerializer)

    @documented(
        "create_webhook",
        "Webhooks",
        "Create a webhook",
        scope=actions.WRITE,
        body=NewWebhookBody,
        answer=NewWebhookSerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Send the tenant's events to a URL from now on. The answer holds the secret that signs them."""
        webhook, secret = actions.create_webhook(actor=self.actor, **self.body(NewWebhookBody))
        return Response(NewWebhookSerializer(webhook, context={"secret": secret}).data, status=201)


class WebhookView(ApiView):
    """`/webhooks/{webhook}`."""

    @documented("get_webhook", "Webhooks", "Show a webhook", scope=actions.READ, answer=WebhookSerializer)
    def get(self, request: Request, webhook_id: str) -> Response:
        """Return one webhook."""
        return Response(WebhookSerializer(actions.webhook_for(self.actor, webhook_id)).data)

    @documented(
        "change_webhook",
        "Webhooks",
        "Change a webhook",
        scope=actions.WRITE,
        body=WebhookChanges,
        answer=WebhookSerializer,
    )
    def patch(self, request: Request, webhook_id: str) -> Response:
        """Change where events go, which ones, or switch a webhook on or off."""
        webhook = actions.webhook_for(self.actor, webhook_id, actions.WRITE)
        changed = actions.update_webhook(actor=self.actor, webhook=webhook, **self.body(WebhookChanges))
        return Response(WebhookSerializer(changed).data)

    @documented("delete_webhook", "Webhooks", "Remove a webhook", scope=actions.WRITE, status=204)
    def delete(self, request: Request, webhook_id: str) -> Response:
        """Send nothing there any more."""
        actions.delete_webhook(actor=self.actor, webhook=actions.webhook_for(self.actor, webhook_id, actions.WRITE))
        return Response(status=204)


class RotateSecret(ApiView):
    """`/webhooks/{webhook}/rotate-secret`."""

    @documented(
        "rotate_webhook_secret",
        "Webhooks",
        "Give a webhook a new secret",
        scope=actions.WRITE,
        answer=NewWebhookSerializer,
    )
    def post(self, request: Request, webhook_id: str) -> Response:
        """Return a new secret. For a day the old one signs beside it."""
        webhook = actions.webhook_for(self.actor, webhook_id, actions.WRITE)
        secret = actions.rotate_secret(actor=self.actor, webhook=webhook)
        return Response(NewWebhookSerializer(webhook, context={"secret": secret}).data)


class SendTest(ApiView):
    """`/webhooks/{webhook}/test`."""

    @documented(
        "test_webhook", "Webhooks", "Send a test event", scope=actions.WRITE, answer=DeliverySerializer, status=202
    )
    def post(self, request: Request, webhook_id: str) -> Response:
        """Queue a test event. The list of deliveries says how it went."""
        webhook = actions.webhook_for(self.actor, webhook_id, actions.WRITE)
        delivery = actions.send_test(actor=self.actor, webhook=webhook)
        return Response(DeliverySerializer(delivery).data, status=202)


class Deliveries(ApiView):
    """`/webhooks/{webhook}/deliveries`."""

    @documented_list(
        "list_webhook_deliveries", "Webhooks", "List deliveries", item=DeliverySerializer, scope=actions.READ
    )
    def get(self, request: Request, webhook_id: str) -> Response:
        """List the deliveries of a webhook, newest first."""
        webhook = actions.webhook_for(self.actor, webhook_id)
        return self.page(webhook.deliveries.all(), NEWEST, DeliverySerializer)


class RetryDelivery(ApiView):
    """`/webhooks/{webhook}/deliveries/{delivery}/retry`."""

    @documented(
        "retry_webhook_delivery",
        "Webhooks",
        "Send a delivery again",
        scope=actions.WRITE,
        answer=DeliverySerializer,
        status=202,
    )
    def post(self, request: Request, webhook_id: str, delivery_id: str) -> Response:
        """Queue a delivery that was given up once more."""
        webhook = actions.webhook_for(self.actor, webhook_id, actions.WRITE)
        delivery = actions.delivery_for(webhook, delivery_id)
        return Response(
            DeliverySerializer(actions.retry_delivery(actor=self.actor, delivery=delivery)).data, status=202
        )
