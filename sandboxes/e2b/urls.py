"""The paths of the E2B control plane."""

from __future__ import annotations

from django.urls import URLPattern, path, re_path

from sandboxes.e2b import secrets, views

# Path of a call under one sandbox → what it would do.
_SANDBOX_LATER = {
    "fork": "forks",
    "snapshots": "snapshots",
}
# First part of a path → what lies under it. Template and snapshot names may contain slashes.
_AREAS_LATER = {
    r"snapshots": "snapshots",
    r"volumes": "volumes",
    r"volumecontent": "volumes",
    r"(?:v[23]/)?templates": "template builds over the API",
    r"default-templates": "template listings over the API",
    r"teams": "team calls",
    r"api-keys": "API keys over the API",
    r"access-tokens": "access tokens",
}


def _later() -> list[URLPattern]:
    named = [
        path(f"sandboxes/<str:sandbox_id>/{name}", views.NotYet.as_view(what=what))
        for name, what in _SANDBOX_LATER.items()
    ]
    areas = [re_path(rf"^{area}(?:/.*)?$", views.NotYet.as_view(what=what)) for area, what in _AREAS_LATER.items()]
    return named + areas


urlpatterns = [
    path("sandboxes", views.CreateAndListV1.as_view()),
    path("v2/sandboxes", views.CreateAndListV2.as_view()),
    path("sandboxes/metrics", views.ManyMetrics.as_view()),
    path("sandboxes/<str:sandbox_id>", views.DetailAndKill.as_view()),
    path("sandboxes/<str:sandbox_id>/connect", views.ConnectV1.as_view()),
    path("v2/sandboxes/<str:sandbox_id>/connect", views.Connect.as_view()),
    path("sandboxes/<str:sandbox_id>/pause", views.Pause.as_view()),
    path("sandboxes/<str:sandbox_id>/resume", views.Resume.as_view()),
    path("sandboxes/<str:sandbox_id>/timeout", views.Timeout.as_view()),
    path("sandboxes/<str:sandbox_id>/refreshes", views.Refreshes.as_view()),
    path("sandboxes/<str:sandbox_id>/metrics", views.Metrics.as_view()),
    path("sandboxes/<str:sandbox_id>/logs", views.LogsV1.as_view()),
    path("v2/sandboxes/<str:sandbox_id>/logs", views.LogsV2.as_view()),
    path("sandboxes/<str:sandbox_id>/network", views.Network.as_view()),
    path("secrets", secrets.CreateAndList.as_view()),
    path("secrets/<str:secret>", secrets.DetailUpdateAndDestroy.as_view()),
    *_later(),
]
