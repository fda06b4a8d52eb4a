"""The paths of all pages."""

from __future__ import annotations

from allauth.account.views import AccountInactiveView, LoginView, LogoutView
from django.urls import URLPattern, URLResolver, include, path

from gatehouse.console import views

# Every app's pages exist twice: about one tenant, and for operators about all of them.
_PAGES = [path("", include("audit.urls"))]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.home, name="home"),
    path("accounts/login/", LoginView.as_view(), name="account_login"),
    path("accounts/logout/", LogoutView.as_view(), name="account_logout"),
    path("accounts/inactive/", AccountInactiveView.as_view(), name="account_inactive"),
    path("t/<slug:slug>/", include(_PAGES)),
    path("operator/", include(_PAGES)),
]
