"""The paths of the audit."""

from __future__ import annotations

from django.urls import path

from audit.api import views

urlpatterns = [
    path("audit-events", views.Events.as_view()),
    path("audit-events/<str:event_id>", views.Event.as_view()),
    path("operations", views.Operations.as_view()),
    path("operations/<str:operation_id>", views.Operation.as_view()),
]
