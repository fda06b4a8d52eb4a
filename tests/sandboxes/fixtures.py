"""What tests of the control plane start from: a node double, a template, people of two tenants and their keys."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

from corekit.actor import SYSTEM, Actor
from sandboxes import actions, events, node_client, reconcile
from tenants import actions as tenant_actions
from tenants import quota
from tenants.authentication import authenticate
from tests.sandboxes.node_double import NodeDouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpResponse

    from tenants.models import ApiKey, Tenant

SEED = "5e" * 32


@dataclass(frozen=True)
class Caller:
    """Somebody with an API key: their actor, and the E2B API as they see it."""

    tenant: Tenant
    key: ApiKey
    secret: str

    @property
    def actor(self) -> Actor:
        """Return the actor behind the key."""
        return authenticate(self.secret, origin="192.0.2.7", request_id="request-1")

    def call(self, method: str, path: str, body: object = None, **headers: str) -> HttpResponse:
        """Call the API and return the answer."""
        client = Client(raise_request_exception=False)
        more: dict[str, Any] = {}
        if body is not None:
            more = {"data": body, "content_type": "application/json"}
        return client.generic(method, path, headers={"X-API-KEY": self.secret} | headers, **_encoded(more))

    def create(self, **body: object) -> dict[str, Any]:
        """Create a sandbox that must succeed and return the answer's body."""
        answer = self.call("POST", "/v2/sandboxes", {"templateID": "base"} | body)
        assert answer.status_code == 201, answer.content
        return answer.json()


def _encoded(more: dict[str, Any]) -> dict[str, Any]:
    import json

    if "data" in more and not isinstance(more["data"], bytes | str):
        more["data"] = json.dumps(more["data"])
    return more


@pytest.fixture
def installation(settings: Any) -> Iterator[Path]:
    """A home of its own with a known seed. Short, because a socket's path must fit into 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gh-") as folder:
        home = Path(folder)
        (home / "run").mkdir()
        settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, home=home, seed_text=SEED)
        yield home


@pytest.fixture
def node(installation: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeDouble]:
    """A node double that listens where the settings say."""
    double = NodeDouble(installation / "run" / "node.sock").listen()
    monkeypatch.setattr(reconcile, "refresher", reconcile.Refresher())
    events.forget_acknowledged()
    yield double
    node_client.local_node().close()
    double.die()


@pytest.fixture
def acme(installation: Path, db: None) -> Tenant:
    """The tenant Acme."""
    return tenant_actions.create_tenant(actor=SYSTEM, name="Acme", slug="acme")


@pytest.fixture
def evil(installation: Path, db: None) -> Tenant:
    """The tenant Evil Corp."""
    return tenant_actions.create_tenant(actor=SYSTEM, name="Evil Corp", slug="evil")


def caller(tenant: Tenant, name: str, scopes: list[str] | None = None) -> Caller:
    """Return somebody of a tenant with a new key."""
    key, secret = tenant_actions.create_api_key(actor=SYSTEM, tenant=tenant, name=name, scopes=scopes)
    return Caller(tenant, key, secret)


@pytest.fixture
def alice(acme: Tenant) -> Caller:
    """Alice of Acme."""
    return caller(acme, "Alice")


@pytest.fixture
def bob(acme: Tenant) -> Caller:
    """Bob of Acme, with a key of his own."""
    return caller(acme, "Bob")


@pytest.fixture
def vera(acme: Tenant) -> Caller:
    """Vera of Acme, who may only look."""
    return caller(acme, "Vera", ["sandboxes:read", "templates:read"])


@pytest.fixture
def mallory(evil: Tenant) -> Caller:
    """Mallory of Evil Corp."""
    return caller(evil, "Mallory")


@pytest.fixture
def base(db: None) -> Any:
    """The template base, registered as the bootstrap does it."""
    return actions.register_build(
        actor=SYSTEM,
        name="base",
        build_id="b-1",
        cpu_milli=1000,
        memory_mib=512,
        disk_mib=1024,
        pids=256,
    )


def used(tenant: Tenant) -> int:
    """Return how many sandboxes the tenant's counter says are in use."""
    return quota.usage(tenant.pk).used.sandboxes
