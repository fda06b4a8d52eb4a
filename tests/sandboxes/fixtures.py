"""What tests of the control plane start from: a node double, a template, and the people with their API keys."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from django.db import connections
from django.test.client import Client, ClientHandler

from sandboxes import actions, events, node_client, nodes, reconcile
from sandboxes.models import Sandbox
from sandboxes.states import LIVE
from tenants import actions as tenant_actions
from tenants import quota
from tenants.authentication import authenticate
from tenants.models import Reservation
from tenants.policy import ROLE_SCOPES
from tests.factories import OPERATOR
from tests.sandboxes.node_double import NodeDouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from corekit.actor import Actor
    from sandboxes.models import Template
    from tenants.models import ApiKey, Tenant
    from tests.people import Person

Result = TypeVar("Result")


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

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Call the API and return the answer. Bytes are sent as they are, everything else as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return client().generic(
            method, path, data, content_type="application/json", headers={"X-API-KEY": self.secret} | headers
        )

    def create(self, **body: object) -> dict[str, Any]:
        """Create a sandbox that must succeed and return the answer's body."""
        answer = self.call("POST", "/v2/sandboxes", {"templateID": "base"} | body)
        assert answer.status_code == 201, answer.content
        made: dict[str, Any] = answer.json()
        return made


def client() -> Client:
    """Return a client that shows server errors as answers, as on the wire."""
    fresh = Client(raise_request_exception=False)
    # One for all: building the middleware costs more than a request.
    fresh.handler = _handler()
    return fresh


@functools.cache
def _handler() -> ClientHandler:
    return ClientHandler()


def caller(tenant: Tenant, name: str, scopes: Iterable[str] | None = None) -> Caller:
    """Return somebody of a tenant with a new key; without scopes it has what an agent backend needs."""
    key, secret = tenant_actions.create_api_key(actor=OPERATOR, tenant=tenant, name=name, scopes=scopes)
    return Caller(tenant, key, secret)


def _with_key(person: Person) -> Caller:
    return caller(person.tenant, f"{person.user.first_name}'s key", ROLE_SCOPES[person.membership.role])


@pytest.fixture
def alice(alice: Person) -> Caller:
    """Alice, owner of Acme, with a key."""
    return _with_key(alice)


@pytest.fixture
def bob(bob: Person) -> Caller:
    """Bob, developer of Acme, with a key of his own."""
    return _with_key(bob)


@pytest.fixture
def vera(vera: Person) -> Caller:
    """Vera, viewer of Acme, with a key that may only look."""
    return _with_key(vera)


@pytest.fixture
def mallory(mallory: Person) -> Caller:
    """Mallory, owner of Evil Corp, with a key."""
    return _with_key(mallory)


@pytest.fixture
def node(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeDouble]:
    """A node double that listens where the settings say."""
    # Short, because a socket's path must fit into 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gh-") as home:
        settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, home=Path(home))
        settings.GATEHOUSE.run.mkdir()
        monkeypatch.setattr(reconcile, "refresher", reconcile.Refresher())
        events.forget_acknowledged()
        nodes.known.forget()
        double = NodeDouble(settings.GATEHOUSE.node_socket).listen()
        yield double
        node_client.local_node().close()
        double.die()


@pytest.fixture
def base(db: None) -> Template:
    """The template base, registered as the bootstrap does it."""
    return actions.register_build(
        actor=OPERATOR,
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


def at_once(count: int, work: Callable[[int], Result], *, threads: int = 100) -> list[Result]:
    """Run `work(0)` … `work(count - 1)` in threads that begin together, and return the results."""
    gate = threading.Barrier(min(count, threads))

    def run(number: int) -> Result:
        try:
            if number < gate.parties:
                gate.wait()
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(count)))


def assert_counters_equal_reality(tenant: Tenant, node: NodeDouble) -> None:
    """What the quota counts is the sum of the reservations, of the live rows, and what runs at the node."""
    counted = quota.usage(tenant.pk).used
    rows = list(Sandbox.everywhere().filter(tenant=tenant, state__in=LIVE))
    reservations = list(Reservation.everywhere().filter(tenant=tenant))
    for name in ("sandboxes", "cpu_milli", "memory_mib", "disk_mib", "request_cpu_milli", "request_memory_mib"):
        assert getattr(counted, name) == sum(getattr(one, name) for one in reservations), name
    assert counted.cpu_milli == sum(row.cpu_milli for row in rows)
    assert {row.pk for row in rows} == {one.sandbox_id for one in reservations} == {one.id for one in node.running()}
