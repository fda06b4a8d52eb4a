"""The servers of the test internet: each listens on every address, and remembers every connection byte by byte.

They take requests more leniently than any real server, so that what must not reach one would be served if it did.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GREETING = b"5.2 database ready\n"
"""What the server on 5432 says before any client speaks."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(slots=True)
class Request:
    """One HTTP request. `headers` has the names in lower case; of repeated ones the last."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    raw: bytes = b""


@dataclass(slots=True)
class Connection:
    """One connection that a server took. `received` is what came, decrypted, up to 64 KiB; `count` all of it."""

    address: str
    port: int
    sni: str | None = None
    received: bytearray = field(default_factory=bytearray)
    count: int = 0
    requests: list[Request] = field(default_factory=list)
    closed: bool = False

    def note(self, data: bytes) -> bytes:
        """Remember and return what came."""
        self.count += len(data)
        self.received += data[: max(0, 65_536 - len(self.received))]
        return data


Answer = tuple[int, dict[str, str], bytes]


@dataclass(slots=True)
class Sites:
    """What servers answer, and who came. A site is a function of a request, by host name or `*`."""

    connections: list[Connection] = field(default_factory=list)
    sites: dict[str, Callable[[Request], Answer]] = field(default_factory=dict)

    def at(self, address: str, port: int | None = None) -> list[Connection]:
        """Return the connections to an address."""
        return [one for one in self.connections if one.address == address and port in (None, one.port)]

    def requests(self) -> list[Request]:
        """Return the requests of all connections."""
        return [request for one in self.connections for request in one.requests]

    async def serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve HTTP/1.1 on a connection, below TLS or not."""
        async with self._taken(writer) as connection:
            tls = writer.get_extra_info("ssl_object")
            connection.sni = getattr(tls, "named", None)
            while await self._serve_one(connection, reader, writer):
                await writer.drain()

    async def serve_database(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak first, then give back what comes."""
        async with self._taken(writer) as connection:
            writer.write(GREETING)
            await writer.drain()
            while data := connection.note(await reader.read(65_536)):
                writer.write(data)
                await writer.drain()

    @contextlib.asynccontextmanager
    async def _taken(self, writer: asyncio.StreamWriter) -> AsyncIterator[Connection]:
        address, port = writer.get_extra_info("sockname")[:2]
        connection = Connection(address, port)
        self.connections.append(connection)
        try:
            yield connection
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            connection.closed = True
            writer.close()

    async def _serve_one(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        request = await _read_request(connection, reader)
        connection.requests.append(request)
        if request.headers.get("upgrade", "").lower() == "websocket":
            await _echo_websocket(connection, request, reader, writer)
            return False
        status, headers, body = self._answer(request)
        close = request.headers.get("connection", "").lower() == "close"
        headers = {"Content-Length": str(len(body)), "Connection": "close" if close else "keep-alive"} | headers
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + (b"" if request.method == "HEAD" else body))
        return not close

    def _answer(self, request: Request) -> Answer:
        host = request.headers.get("host", "").partition(":")[0]
        site = self.sites.get(host) or self.sites.get("*") or _usual_site
        return site(request)


def _usual_site(request: Request) -> Answer:
    target = urlsplit(request.target)
    if target.path == "/redirect":
        return 302, {"Location": unquote(parse_qs(target.query)["to"][0])}, b""
    if target.path.startswith("/bytes/"):
        return 200, {}, b"x" * int(target.path.removeprefix("/bytes/"))
    if request.method in ("POST", "PUT"):
        return 200, {}, f"took {len(request.body)}\n".encode()
    return 200, {"Content-Type": "text/plain"}, f"served {request.headers.get('host', '')}{request.target}\n".encode()


async def _read_request(connection: Connection, reader: asyncio.StreamReader) -> Request:
    raw = connection.note(await reader.readuntil(b"\n"))
    while (line := connection.note(await reader.readuntil(b"\n"))) not in (b"\r\n", b"\n"):
        raw += line
    first, *fields = raw.decode("latin-1").splitlines()
    method, _, rest = first.partition(" ")
    headers = {}
    for one in fields:
        name, _, value = one.partition(":")
        headers[name.strip().lower()] = value.strip()
    request = Request(method, rest.rpartition(" ")[0], headers, raw=raw)
    if "chunked" in headers.get("transfer-encoding", ""):
        request.body = await _read_chunks(connection, reader)
    elif "content-length" in headers:
        request.body = connection.note(await reader.readexactly(int(headers["content-length"])))
    return request


async def _read_chunks(connection: Connection, reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(connection.note(await reader.readuntil(b"\n")).split(b";")[0], 16):
        body += connection.note(await reader.readexactly(size + 2))[:-2]
    connection.note(await reader.readuntil(b"\n"))
    return body


async def _echo_websocket(
    connection: Connection, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    key = request.headers.get("sec-websocket-key", "").encode()
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    lines = ["HTTP/1.1 101 Said", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    while True:
        head = connection.note(await reader.readexactly(2))
        mask = connection.note(await reader.readexactly(4))
        said = connection.note(await reader.readexactly(head[1] & 0x7F))
        said = bytes(one ^ mask[place % 4] for place, one in enumerate(said))
        writer.write(bytes((head[0], len(said))) + said)
        await writer.drain()
        if head[0] & 0xF == 8:
            return
