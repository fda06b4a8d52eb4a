"""All paths of the REST API. Each app brings its own."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from gatehouse.api import schema
from gatehouse.api.views import Me

_v1: list[URLPattern | URLResolver] = [
    path("me", Me.as_view()),
    path("", include("tenants.api.urls")),
    path("", include("audit.api.urls")),
    path("", include("sandboxes.api.urls")),
]

urlpatterns = [
    path("schema", schema.Schema.as_view(), name="api-schema"),
    path("docs", schema.Docs.as_view(), name="api-docs"),
    path("v1/", include(_v1)),
]
