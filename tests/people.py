"""The people of the tests: who they are, what they may do, and how they call the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.test import Client

from corekit.actor import Actor
from tenants import actions
from tenants.policy import ROLE_SCOPES
from tests import factories

if TYPE_CHECKING:
    from tenants.models import Membership, Tenant, User


@dataclass(frozen=True)
class Person:
    """A member of one tenant."""

    user: User
    tenant: Tenant
    membership: Membership

    @property
    def actor(self) -> Actor:
        """Return the person as an actor, with the scopes of their role."""
        return Actor(
            kind="user",
            id=str(self.user.pk),
            name=self.user.first_name,
            tenant_id=self.tenant.id.hex,
            scopes=ROLE_SCOPES[self.membership.role],
            origin="203.0.113.7",
        )

    def key(self, **options: Any) -> str:
        """Return the text of a new API key with all that the person may give away."""
        options.setdefault("scopes", ROLE_SCOPES[self.membership.role])
        _, plaintext = actions.create_api_key(
            actor=factories.OPERATOR, tenant=self.tenant, name=f"{self.user.first_name}'s key", **options
        )
        return plaintext


def join(tenant: Tenant, name: str, role: str) -> Person:
    """Make a person with an account a member of a tenant."""
    user = factories.user(name)
    membership = actions.add_member(actor=factories.OPERATOR, tenant=tenant, user=user, role=role)
    return Person(user, tenant, membership)


class ApiClient(Client):
    """A JSON client that carries an API key; server errors come back as answers, as over the wire."""

    def __init__(self, key: str | None) -> None:
        headers = {"x-api-key": key} if key else {}
        super().__init__(raise_request_exception=False, headers=headers)

    def generic(self, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        """Send JSON unless something else is asked for."""
        if kwargs.get("content_type") is None and not (len(args) > 1):
            kwargs["content_type"] = "application/json"
        return super().generic(method, path, *args, **kwargs)
