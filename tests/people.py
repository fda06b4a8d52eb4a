"""The people of the tests: who they are, what they may do, and how they call the API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from django.test import Client

from corekit.actor import Actor
from tenants import actions
from tenants.policy import ROLE_SCOPES
from tests import factories

if TYPE_CHECKING:
    from collections.abc import Mapping

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


class ApiClient:
    """The API as somebody with a key (or without one) sees it. Server errors come back as answers, as on the wire."""

    def __init__(self, key: str | None) -> None:
        self.headers = {"X-API-KEY": key} if key else {}
        self.client = Client(raise_request_exception=False)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Send a body as JSON, or `raw` as it is, and return the answer."""
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        answer: Any = self.client.generic(
            method, path, data, content_type=content_type, headers=self.headers | dict(headers or {})
        )
        assert isinstance(answer, HttpResponse)
        return answer

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
        """Send a GET."""
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: object = None) -> HttpResponse:
        """Send a POST."""
        return self.call("POST", path, body)
