"""The paths of the audit's pages, below a tenant and below the operators' pages alike."""

from __future__ import annotations

from django.urls import path

from audit import views

urlpatterns = [
    path("audit", views.Events.as_view()),
    path("audit/risk.json", views.RiskOverTime.as_view()),
    path("audit/export", views.Export.as_view()),
    path("audit/sandboxes/<str:sandbox_id>", views.Timeline.as_view()),
    path("audit/verdicts/<str:verdict_id>/override", views.Override.as_view()),
    path("audit/<str:event_id>", views.Event.as_view()),
    path("audit/<str:event_id>/arguments", views.Arguments.as_view()),
    path("audit/<str:event_id>/proof", views.Proof.as_view()),
]
