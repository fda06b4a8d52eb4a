"""The place of the tests: a running gateway, the doubles around it, and calls as the SDK makes them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.gateway import doubles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import aiohttp

    from sandboxes.gateway.app import Gateway
    from sandboxes.gateway.routes import Route

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
        self, sandbox_id: str = ALICE, /, *, token: str | None = None, port: int | str = 49983, **more: str
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

    async def raw(self, first_line: str, body: bytes = b"", /, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Send a request as it stands, without a client library; return status, fields and body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request_bytes(first_line, body, **headers))
            return await read_answer(reader)
        finally:
            writer.close()

    async def change(self, **more: Any) -> Route:
        """Let the node say something else about Alice's sandbox; return her route once the gateway heard it."""
        self.edge.put(doubles.row(ALICE, self.guest.path, {ALICE_KEY: None}, **more))
        self.edge.put(doubles.row("imarker", self.guest.path, {}))
        await until(lambda: self.gateway.services.table.get("imarker"))
        self.edge.drop("imarker")
        await until(lambda: self.gateway.services.table.get("imarker") is None)
        route = self.gateway.services.table.get(ALICE)
        assert route is not None
        return route

    async def routes(self, number: int) -> None:
        """Wait until the gateway knows so many sandboxes."""
        await until(lambda: len(self.gateway.services.table) == number)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def request_bytes(first_line: str, body: bytes = b"", /, **headers: str) -> bytes:
    """Return the bytes of a request; a header without a value is left out."""
    fields = {"Host": "localhost"} | {name.replace("_", "-"): value for name, value in headers.items() if value}
    lines = [first_line, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Read a whole answer; its body as JSON when it is JSON."""
    async with asyncio.timeout(10):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(fields.get("content-length", 0)))
    status = int(first.split(" ")[1])
    return status, fields, json.loads(body) if fields.get("content-type", "").startswith("application/json") else body
