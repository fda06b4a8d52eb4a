"""The paths of tenants."""

from __future__ import annotations

from django.urls import path

from tenants.api import views

_TENANT = "tenants/<str:tenant_id>"

urlpatterns = [
    path("tenants", views.Tenants.as_view()),
    path(_TENANT, views.Tenant.as_view()),
    path(f"{_TENANT}/suspend", views.Suspend.as_view()),
    path(f"{_TENANT}/activate", views.Activate.as_view()),
    path(f"{_TENANT}/members", views.Members.as_view()),
    path(f"{_TENANT}/members/<int:user_id>", views.Member.as_view()),
    path(f"{_TENANT}/keys", views.Keys.as_view()),
    path(f"{_TENANT}/keys/<str:key_id>", views.Key.as_view()),
    path(f"{_TENANT}/quota", views.Quota.as_view()),
    path(f"{_TENANT}/limit-range", views.LimitRange.as_view()),
]
