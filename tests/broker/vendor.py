"""A service that the broker calls: a real server with TLS on loopback, which behaves, or misbehaves, as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.internet.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

_PATIENCE_S = 60.0
_LARGEST_LINE = 1 << 20


@dataclass(slots=True)
class Request:
    """What came in. `fields` are as they were written, `headers` by name in lower case, of repeated ones the last."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers by name."""
        return {name.lower(): value for name, value in self.fields}

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


class Peer:
    """One connection as a behaviour sees it."""

    def __init__(self, vendor: Vendor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._vendor = vendor
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes | object = b"", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send an answer of a known length; what is not bytes goes as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        await self.head(status, {"Content-Type": kind, "Content-Length": str(len(content))} | dict(headers or {}))
        await self.send(content)

    async def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the beginning of an answer."""
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        await self.send("\r\n".join(lines).encode("latin-1"))

    async def chunked(
        self, *pieces: bytes, kind: str = "text/event-stream", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send an answer in chunks and end it."""
        await self.begin_chunks(kind, headers)
        for piece in pieces:
            await self.chunk(piece)
        await self.chunk(b"")

    async def begin_chunks(self, kind: str = "text/event-stream", headers: Mapping[str, str] | None = None) -> None:
        """Send the head of an answer in chunks."""
        await self.head(200, {"Content-Type": kind, "Transfer-Encoding": "chunked"} | dict(headers or {}))

    async def chunk(self, piece: bytes) -> None:
        """Send one chunk; an empty one ends the answer."""
        await self.send(b"%x\r\n%s\r\n" % (len(piece), piece))

    async def until(self, name: str) -> None:
        """Wait until the test says a word."""
        await self._vendor.event(name).wait()

    async def gone(self) -> None:
        """Wait until the other side has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


async def echo_length(request: Request, peer: Peer) -> None:
    """Answer with what came, as far as that is anybody's business."""
    await peer.answer({"method": request.method, "target": request.target, "length": len(request.body)})


@dataclass
class Vendor:
    """The server. `behave` answers every request; `requests` are all that came in whole."""

    authority: Authority
    requests: list[Request] = field(default_factory=list)
    behave: Callable[[Request, Peer], Awaitable[None]] = echo_length
    raw: Callable[[Peer], Awaitable[None]] | None = None
    heads: list[Request] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _events: dict[str, asyncio.Event] = field(default_factory=dict)
    _over: asyncio.Event | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"https://localhost:{self.port}"

    def event(self, name: str) -> asyncio.Event:
        """Return the event that stands for a word; for behaviours."""
        return self._events.setdefault(name, asyncio.Event())

    def say(self, name: str) -> None:
        """Let behaviours go on that wait for a word."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: self.event(name).set())

    def wait(self, condition: Callable[[Vendor], Any]) -> None:
        """Return once a condition holds, which is looked at whenever something happened here."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), _PATIENCE_S)

    def _happened(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Peer(self, reader, writer)
        try:
            if self.raw is not None:
                await self.raw(peer)
                return
            while True:
                request = await _head(reader)
                self.heads.append(request)
                self._happened()
                request.body = await _body(request, reader)
                self.requests.append(request)
                self._happened()
                await self.behave(request, peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.ended += 1
            self._happened()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        context = self.authority.context("localhost")
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, limit=_LARGEST_LINE)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()


async def _head(reader: asyncio.StreamReader) -> Request:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:] if line)]
    return Request(method, rest.rpartition(" ")[0], fields)


async def _body(request: Request, reader: asyncio.StreamReader) -> bytes:
    if request.headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    return await reader.readexactly(int(request.headers.get("content-length", "0")))


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Vendor]:
    """Serve until the block ends."""
    vendor = Vendor(Authority(directory))
    thread = threading.Thread(target=vendor._run, daemon=True)
    thread.start()
    assert vendor._ready.wait(_PATIENCE_S)
    try:
        yield vendor
    finally:
        assert vendor._loop is not None
        assert vendor._over is not None
        vendor._loop.call_soon_threadsafe(vendor._over.set)
        thread.join(_PATIENCE_S)
