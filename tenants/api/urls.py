"""The paths of tenants."""

from __future__ import annotations

from django.urls import path

from tenants.api import networks, secrets, services, views

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
    path(f"{_TENANT}/network", networks.TenantNetwork.as_view()),
    path("network-policies", networks.Policies.as_view()),
    path("network-policies/check", networks.Check.as_view()),
    path("network-policies/<str:policy_id>", networks.Policy.as_view()),
    path("network-policies/<str:policy_id>/versions", networks.Versions.as_view()),
    path("network-bundles", networks.Bundles.as_view()),
    path("network-bundles/<str:bundle_name>", networks.Bundle.as_view()),
    path("network-deny-list", networks.DenyList.as_view()),
    path("secrets", secrets.Secrets.as_view()),
    path("secrets/<str:secret_id>", secrets.SecretDetail.as_view()),
    path("secrets/<str:secret_id>/versions", secrets.Versions.as_view()),
    path("secrets/<str:secret_id>/disable", secrets.Disable.as_view()),
    path("secrets/<str:secret_id>/enable", secrets.Enable.as_view()),
    path("vaults", secrets.Vaults.as_view()),
    path("services", services.Services.as_view()),
    path("services/<str:service_id>", services.Service.as_view()),
]
