"""The paths of the audit."""

from __future__ import annotations

from django.urls import path

from audit.api import arguments, exports, risk, views, webhooks

urlpatterns = [
    path("audit-events", views.Events.as_view()),
    path("audit-events/export", exports.Export.as_view()),
    path("audit-events/<str:event_id>", views.Event.as_view()),
    path("audit-events/<str:event_id>/proof", exports.Proof.as_view()),
    path("audit-events/<str:event_id>/arguments", arguments.Arguments.as_view()),
    path("audit-argument-copies", arguments.Copies.as_view()),
    path("audit-chain", exports.ChainView.as_view()),
    path("audit-checkpoints", exports.Checkpoints.as_view()),
    path("webhooks", webhooks.Webhooks.as_view()),
    path("webhooks/<str:webhook_id>", webhooks.WebhookView.as_view()),
    path("webhooks/<str:webhook_id>/rotate-secret", webhooks.RotateSecret.as_view()),
    path("webhooks/<str:webhook_id>/test", webhooks.SendTest.as_view()),
    path("webhooks/<str:webhook_id>/deliveries", webhooks.Deliveries.as_view()),
    path("webhooks/<str:webhook_id>/deliveries/<str:delivery_id>/retry", webhooks.RetryDelivery.as_view()),
    path("risk", risk.Levels.as_view()),
    path("risk-policy", risk.Policy.as_view()),
    path("risk-suppressions", risk.Suppressions.as_view()),
    path("risk-suppressions/<str:suppression_id>", risk.Suppression.as_view()),
    path("verdicts", risk.Verdicts.as_view()),
    path("verdicts/<str:verdict_id>/override", risk.Override.as_view()),
    path("operations", views.Operations.as_view()),
    path("operations/<str:operation_id>", views.Operation.as_view()),
]
