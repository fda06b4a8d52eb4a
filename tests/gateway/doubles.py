"""Doubles for what the gateway talks to: a node, a guest, web. All of them are real servers on unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from corekit import tokens

if TYPE_CHECKING:
    from pathlib import Path

TENANT = "a" * 32
AUDIT_KEY = bytes(range(32))
SEED = b"seed of the tests"


@dataclass
class Request:
    """A request as a double received it."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """Return the first field of this name."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), None)

    def names(self) -> set[str]:
        """Return the lower-case names of all fields."""
        return {key.lower() for key, _ in self.fields}


Script = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool | None]]


async def read_head(reader: asyncio.StreamReader) -> Request | None:
    """Read a request's head; None when the peer closed."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = block.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Request(method, target, fields)


async def read_body(reader: asyncio.StreamReader, request: Request) -> bytes:
    """Read a request's body, by length or in chunks."""
    if request.get("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return body
    return await reader.readexactly(int(request.get("Content-Length") or 0))


def answer(status: int, body: bytes = b"", **fields: str) -> bytes:
    """Return the bytes of a whole answer."""
    lines = [f"HTTP/1.1 {status} X"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def envelope(message: object, flags: int = 0) -> bytes:
    """Return one Connect envelope."""
    body = json.dumps(message).encode()
    return bytes([flags]) + len(body).to_bytes(4, "big") + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/connect+json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """A unix socket server that hands every request to `script` and remembers it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), limit=4 * 1024 * 1024)

    async def stop(self) -> None:
        """Close the listener and every connection, as a killed process would."""
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.serve(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        raise AssertionError("each double says how it serves")


class Guest(Server):
    """A guest agent. `on(method, path)` gives the script of a call; a script that returns False hangs up."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._scripts: dict[tuple[str, str], Script] = {}
        self.on("GET", "/health", self._health)
        self.on("POST", "/process.Process/Start", self._start)

    def on(self, method: str, path: str, script: Script | bytes) -> None:
        """Answer a call with these bytes, or by this script."""
        if isinstance(script, bytes):
            fixed = script

            async def write(request: Request, reader: Any, writer: asyncio.StreamWriter) -> None:
                request.body = await read_body(reader, request)
                writer.write(fixed)

            self._scripts[method, path] = write
        else:
            self._scripts[method, path] = script

    def open_port(
        self, port: int, handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        """Let a server listen on a port inside the sandbox."""

        async def connect(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await handler(reader, writer)
            return False

        self._scripts["CONNECT", f"127.0.0.1:{port}"] = connect

    def calls(self, method: str, path: str) -> list[Request]:
        """Return the requests of one call."""
        return [one for one in self.requests if (one.method, one.target.partition("?")[0]) == (method, path)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve requests until one of the scripts hangs up."""
        while request := await read_head(reader):
            self.requests.append(request)
            script: Script = self._scripts.get((request.method, request.target.partition("?")[0]), self._missing)
            if await script(request, reader, writer) is False:
                return
            await writer.drain()

    async def _health(self, request: Request, reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(204))

    async def _missing(self, request: Request, reader: Any, writer: asyncio.StreamWriter) -> None:
        if request.method == "CONNECT":
            writer.write(answer(502, X_Gatehouse_Reason="port_closed"))
            return
        request.body = await read_body(reader, request)
        writer.write(answer(404, b'{"code":"not_found","message":"no"}', Content_Type="application/json"))

    async def _start(self, request: Request, reader: Any, writer: asyncio.StreamWriter) -> None:
        request.body = await read_body(reader, request)
        writer.write(STREAM_HEAD)
        writer.write(chunk(envelope({"event": {"start": {"pid": 42}}})))
        writer.write(chunk(envelope({"event": {"data": {"stdout": "aGkK"}}})))
        writer.write(chunk(envelope({"event": {"end": {"exited": True, "status": "exit status 0"}}})))
        writer.write(chunk(envelope({}, 2)) + b"0\r\n\r\n")


class Web(Server):
    """Web behind the gateway: answers with what it received."""

    reply: bytes | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echo requests as JSON, or answer with `reply`."""
        while request := await read_head(reader):
            if request.get("Upgrade"):
                self.requests.append(request)
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: yes\r\n\r\n"
                )
                while data := await reader.read(65536):
                    writer.write(data.upper())
                    await writer.drain()
                return
            request.body = await read_body(reader, request)
            self.requests.append(request)
            body = json.dumps(
                {
                    "method": request.method,
                    "target": request.target,
                    "fields": request.fields,
                    "size": len(request.body),
                }
            ).encode()
            writer.write(self.reply or answer(200, body, Content_Type="application/json"))
            await writer.drain()


class Tap(Server):
    """The node's event socket. `refuse` answers every event with that code; `silent` never answers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.events: list[dict[str, Any]] = []
        self.refuse: str | None = None
        self.silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Confirm event after event."""
        while line := await reader.readline():
            message = json.loads(line)
            if self.silent:
                continue
            reply: dict[str, Any] = {"n": message["n"], "ok": True, "seq": len(self.events) + 1}
            if self.refuse:
                reply = {"n": message["n"], "ok": False, "code": self.refuse}
            else:
                self.events.append(message["event"])
            writer.write(json.dumps(reply).encode() + b"\n")

    def of(self, code: str, phase: str) -> list[dict[str, Any]]:
        """Return the events of one code and phase."""
        return [one for one in self.events if one["code"] == code and one["phase"] == phase]


class Edge(Server):
    """The node's feed of routes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows: dict[str, dict[str, Any]] = {}
        self._followers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the snapshot, then every change."""
        request = await read_head(reader)
        assert request is not None
        assert request.target == "/v1/routes"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        for row in self.rows.values():
            self._write(writer, row)
        self._write(writer, {"op": "synced"})
        self._followers.append(writer)
        try:
            await reader.read()
        finally:
            self._followers.remove(writer)

    def _write(self, writer: asyncio.StreamWriter, row: dict[str, Any]) -> None:
        writer.write(chunk(json.dumps(row).encode() + b"\n"))

    def send(self, row: dict[str, Any]) -> None:
        """Send one line to every follower."""
        for writer in self._followers:
            self._write(writer, row)

    def put(self, row: dict[str, Any]) -> None:
        """Add or replace a sandbox."""
        self.rows[row["id"]] = row
        self.send(row)

    def drop(self, sandbox_id: str) -> None:
        """Remove a sandbox."""
        row = self.rows.pop(sandbox_id)
        self.send({"op": "drop", "id": sandbox_id, "generation": row["generation"]})


def row(
    sandbox_id: str, socket: Path, grants: dict[str, int | None], *, generation: int = 1, **more: Any
) -> dict[str, Any]:
    """Return a route as the node sends it."""
    return {
        "op": "put",
        "id": sandbox_id,
        "generation": generation,
        "tenant": TENANT,
        "socket": str(socket),
        "access_key": tokens.access_key(SEED, sandbox_id, generation).hex(),
        "audit_key": AUDIT_KEY.hex(),
        "grants": grants,
        "state": "running",
        **more,
    }


def token(sandbox_id: str, key_id: str, *, generation: int = 1) -> str:
    """Return the access token of one key for one sandbox."""
    return tokens.mint(tokens.access_key(SEED, sandbox_id, generation), key_id)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that nobody signed; return its file and its key's."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files
