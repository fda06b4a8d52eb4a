"""A broker between a sandbox and a service: `ialice` is Acme's sandbox, `vendor` the service, `sk-…` its key."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from gatehouse.asgi import application
from tenants import turns
from tenants.broker import actions, wishes
from tenants.broker.actions import Bound
from tenants.broker.app import BrokerApp
from tenants.secrets.actions import create_secret
from tenants.tokenmodels import BrokerService, ScopedToken
from tests.broker import vendor as vendors
from tests.webserver import Connection, Web

if TYPE_CHECKING:
    import http.client
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.broker.vendor import Vendor
    from tests.people import Person

KEY = "sk-proj-T3st/Key+of=Acme_9fQ2xWv7"
ALICE, BOB = "ialice", "ibob"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
ANY = ({"methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], "paths": ["/**"]},)


@dataclass
class Answer:
    """What the sandbox got."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Return the code of an error of the broker's own."""
        return str(self.json()["error"]["code"])


@dataclass
class Place:
    """The broker as a sandbox sees it, and as the test sees it from behind."""

    web: Web
    vendor: Vendor
    alice: Person

    def service(self, name: str = "vendor", **fields: Any) -> BrokerService:
        """Let a name lead to the vendor."""
        defaults: dict[str, Any] = {"base_url": self.vendor.base_url, "private": True, "slot": "bearer"} | fields
        tenant = defaults.pop("tenant", self.alice.tenant)
        return BrokerService.objects.update_or_create(name=name, tenant=tenant, defaults=defaults)[0]

    def token(self, *, sandbox: str = ALICE, generation: int = 1, service: str = "vendor", **wish: Any) -> str:
        """Issue a token of Alice's for her sandbox; return its text."""
        asked = wishes.Wish(**({"secret": "vendor-key", "service": service, "allow": ANY, "max_uses": None} | wish))
        checked = wishes.check(self.alice.tenant.pk, asked)
        bound = Bound(self.alice.tenant.pk, sandbox, generation)
        with turns.write():
            return actions.issue(actor=self.alice.actor, bound=bound, wish=asked, checked=checked).text

    def wait_for_services(self, seconds: float) -> None:
        """Let the broker give a silent service up after this time; before the first call."""
        application._broker = BrokerApp(read_s=seconds)

    def row(self) -> ScopedToken:
        """Return the row of the newest token."""
        return ScopedToken.everywhere().latest("created_at")

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        sandbox: str = ALICE,
        generation: int = 1,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request as egress does and return the answer as soon as it begins."""
        connection = Connection(self.web.broker)
        said = {"Gatehouse-Sandbox-Id": sandbox, "Gatehouse-Sandbox-Generation": str(generation)}
        if token is not None:
            said["Authorization"] = f"Bearer {token}"
        connection.request(method, path, body, {"Host": "broker.gatehouse.internal"} | said | dict(headers or {}))
        return connection, connection.getresponse()

    def ask(self, method: str = "GET", path: str = "/vendor/v1/things", body: Any = None, **options: Any) -> Answer:
        """Send a request with a token of its own, unless one is given; return the whole answer."""
        if "token" not in options:
            options["token"] = self.token()
        connection, response = self.send(method, path, body, **options)
        try:
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    @contextmanager
    def stream(self, path: str = "/vendor/v1/stream", **options: Any) -> Iterator[http.client.HTTPResponse]:
        """Send a request and read its answer piece by piece."""
        connection, response = self.send("GET", path, token=options.pop("token", None) or self.token(), **options)
        try:
            yield response
        finally:
            connection.close()

    def half_sent(self, method: str, path: str, part: bytes, *, length: int) -> tuple[Connection, str]:
        """Send a request without the end of its body."""
        token = self.token()
        connection = Connection(self.web.broker)
        connection.putrequest(method, path)
        said = {"Gatehouse-Sandbox-Id": ALICE, "Gatehouse-Sandbox-Generation": "1", "Authorization": f"Bearer {token}"}
        for name, value in said.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(length))
        connection.endheaders(part)
        return connection, token

    def events(self, code: str, count: int = 1) -> list[Event]:
        """Return the events of a code, once there are so many: a call's end is written after its answer."""
        deadline = time.monotonic() + 10
        while len(found := list(Event.objects.filter(code=code).order_by("pk"))) < count:
            assert time.monotonic() < deadline, f"{len(found)} events {code}"
            time.sleep(0.01)
        return found


def spellings(key: str = KEY) -> dict[str, bytes]:
    """Return the six encodings of a key, each by its name."""
    raw = key.encode()
    percent = raw.replace(b"/", b"%2F").replace(b"+", b"%2B").replace(b"=", b"%3D")
    return {
        "raw": raw,
        "percent": percent,
        "json": raw.replace(b"/", b"\\/"),
        "base64": base64.b64encode(b"x" + raw + b"yz"),
        "basic": base64.b64encode(b":" + raw),
        "hex": raw.hex().encode(),
    }


@pytest.fixture(scope="session")
def one_vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """Return the vendor of this process."""
    with vendors.running(tmp_path_factory.mktemp("vendor")) as vendor:
        yield vendor


@pytest.fixture
def vendor(one_vendor: Vendor) -> Vendor:
    """Return the vendor as new: it remembers nothing and behaves."""
    one_vendor.requests.clear()
    one_vendor.heads.clear()
    one_vendor.connections = one_vendor.ended = 0
    one_vendor.behave, one_vendor.raw = vendors.echo_length, None
    one_vendor._events.clear()
    return one_vendor


@pytest.fixture
def place(vendor: Vendor, alice: Person, settings: Any, home: Path) -> Iterator[Place]:
    """Return a broker with Acme's key for the vendor."""
    settings.GATEHOUSE = dataclasses.replace(
        settings.GATEHOUSE, broker_networks=LOOPBACK, broker_ca_file=vendor.authority.file
    )
    create_secret(actor=alice.actor, tenant=alice.tenant, name="vendor-key", value=KEY)
    web = Web(settings.GATEHOUSE)
    made = Place(web, vendor, alice)
    made.service()
    yield made
    web.stop()
