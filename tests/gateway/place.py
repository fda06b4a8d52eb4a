"""The place of the tests: a running gateway, the doubles around it, and calls as the SDK makes them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.gateway import doubles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import aiohttp

    from sandboxes.gateway.app import Gateway

ALICE = "ialice"
ALICE_KEY = "a" * 16
BOB_KEY = "b" * 16
MALLORY = "imallory"
MALLORY_KEY = "e" * 16


@dataclass
class Place:
    """Everything around a running gateway."""

    gateway: Gateway
    url: str
    port: int
    home: Path
    edge: doubles.Edge
    tap: doubles.Tap
    web: doubles.Web
    guest: doubles.Guest
    http: aiohttp.ClientSession

    def headers(
        self, sandbox_id: str = ALICE, *, token: str | None = None, port: int = 49983, **more: str
    ) -> dict[str, str]:
        """Return the headers with which Alice's SDK calls her sandbox."""
        found = {"E2b-Sandbox-Id": sandbox_id, "E2b-Sandbox-Port": str(port)}
        if token != "":
            found["X-Access-Token"] = token or doubles.token(ALICE, ALICE_KEY)
        return found | {name.replace("_", "-"): value for name, value in more.items()}

    def rpc(self, name: str, message: object, **headers: Any) -> Any:
        """Call a unary method."""
        return self.http.post(f"{self.url}/{name}", json=message, headers=self.headers(**headers))

    def start(self, message: object, **headers: Any) -> Any:
        """Call Start with one envelope."""
        return self.http.post(
            f"{self.url}/process.Process/Start",
            data=doubles.envelope(message),
            headers=self.headers(**headers, Content_Type="application/connect+json"),
        )

    async def routes(self, number: int) -> None:
        """Wait until the gateway knows so many sandboxes."""
        await until(lambda: len(self.gateway.services.table) == number)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
