"""The paths of sandboxes, executions, templates and nodes."""

from __future__ import annotations

from django.urls import path

from sandboxes.api import flows, tokens, views

_SANDBOX = "sandboxes/<str:sandbox_id>"

urlpatterns = [
    path("sandboxes", views.Sandboxes.as_view()),
    path(_SANDBOX, views.Sandbox.as_view()),
    path(f"{_SANDBOX}/access", views.SandboxAccess.as_view()),
    path(f"{_SANDBOX}/extend", views.Extend.as_view()),
    path(f"{_SANDBOX}/pause", views.Pause.as_view()),
    path(f"{_SANDBOX}/resume", views.Resume.as_view()),
    path(f"{_SANDBOX}/network", views.Network.as_view()),
    path(f"{_SANDBOX}/network/draft", flows.Draft.as_view()),
    path("network-replay", flows.Replay.as_view()),
    path(f"{_SANDBOX}/tokens", tokens.Tokens.as_view()),
    path(f"{_SANDBOX}/tokens/<str:token_id>", tokens.Token.as_view()),
    path(f"{_SANDBOX}/attestation", views.Attestation.as_view()),
    path(f"{_SANDBOX}/metrics", views.Metrics.as_view()),
    path(f"{_SANDBOX}/events", views.Events.as_view()),
    path("executions", views.Executions.as_view()),
    path("executions/<str:execution_id>", views.Execution.as_view()),
    path("tenants/<str:tenant_id>/offboard", views.Offboard.as_view()),
    path("templates", views.Templates.as_view()),
    path("templates/<str:template_id>", views.Template.as_view()),
    path("nodes", views.Nodes.as_view()),
    path("nodes/<str:node_id>", views.Node.as_view()),
]
