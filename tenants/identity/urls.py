"""The well-known paths of the issuer."""

from __future__ import annotations

from django.urls import path

from tenants.identity import views

urlpatterns = [
    path(".well-known/openid-configuration", views.configuration, name="identity-configuration"),
    path(".well-known/jwks.json", views.key_set, name="identity-keys"),
]
