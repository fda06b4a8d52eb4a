"""A gateway between doubles: Alice's sandbox is `ialice`, Mallory of Evil Corp has her own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import uvloop

from audit.risk.pool import Assessor
from sandboxes.gateway.app import create_app
from sandboxes.gateway.settings import GatewaySettings, Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, Place, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Run these tests on the loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def limits() -> Limits:
    """The limits of the gateway under test; a test file that needs others overrides this."""
    return Limits(drain_seconds=0.2, intent_seconds=0.3)


@pytest.fixture
def domain() -> str:
    """The platform's domain."""
    return "sbx.example"


@pytest.fixture(scope="session")
def assessor() -> Iterator[Assessor]:
    """The judge of code that all gateways under test share: its processes take a while to start."""
    with Assessor() as judge:
        yield judge


@pytest.fixture
async def place(tmp_path: Path, limits: Limits, domain: str, assessor: Assessor) -> AsyncIterator[Place]:
    """A gateway on a free port with Alice's sandbox running."""
    run = tmp_path / "run"
    settings = GatewaySettings.under(tmp_path, domain=domain, limits=limits)
    edge, tap = doubles.Edge(run / "edge.sock"), doubles.Tap(run / "tap.sock")
    web, guest = doubles.Web(run / "web.sock"), doubles.Guest(run / "guests/1/guest.sock")
    edge.rows[ALICE] = doubles.row(ALICE, guest.path, {ALICE_KEY: None})
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with edge, tap, web, guest, create_app(settings, assessor) as gateway:
        await gateway.listen(sock)
        await until(lambda: gateway.services.table.synced)
        async with aiohttp.ClientSession(auto_decompress=False) as http:
            yield Place(gateway, f"http://127.0.0.1:{port}", port, tmp_path, edge, tap, web, guest, http)
