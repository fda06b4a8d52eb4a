"""All paths of web."""

from __future__ import annotations

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from gatehouse import views

# One door with one limit on guesses: the admin has no sign-in form of its own.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns: list[URLPattern | URLResolver] = [
    path("health", views.health, name="health"),
    path("admin/", admin.site.urls),
    path("", include("gatehouse.console.urls")),
    path("api/", include("gatehouse.api.urls")),
    path("", include("tenants.identity.urls")),
    path("", include("sandboxes.e2b.urls")),
]

handler400 = "gatehouse.views.bad_request"
handler403 = "gatehouse.views.forbidden"
handler404 = "gatehouse.views.not_found"
handler500 = "gatehouse.views.server_error"
