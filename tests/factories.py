"""Rows that tests start from, made through the same actions that the product uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekit.actor import Actor
from tenants import actions
from tenants.models import User
from tenants.secrets import actions as secret_actions

if TYPE_CHECKING:
    from tenants.models import Tenant
    from tenants.secretmodels import Secret

OPERATOR = Actor(kind="user", id="operator", name="Olga", tenant_id=None, scopes=frozenset({"*"}))


def tenant(name: str, **quota: int) -> Tenant:
    """Return a new tenant with the default quota, or with some limits changed."""
    made = actions.create_tenant(actor=OPERATOR, name=name, slug=name.lower().replace(" ", "-"))
    if quota:
        actions.set_quota(actor=OPERATOR, tenant=made, **quota)
    return made


def user(name: str) -> User:
    """Return a new account without a usable password."""
    return User.objects.create_user(name.lower(), first_name=name)


def secret(tenant: Tenant, name: str, value: str) -> Secret:
    """Return a new secret in the embedded vault."""
    return secret_actions.create_secret(actor=OPERATOR, tenant=tenant, name=name, value=value)
