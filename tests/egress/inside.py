"""Alice's programs whose TLS egress ends, and what stands in for the control plane that knows the secrets.

The stand-in speaks as web does on its internal socket, but judges nothing: it says what a test wants to be said. With
the real one these things are tried in tests/security and tests/sdk.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandboxes.node.trust import certify
from tests.egress.place import ALICE, Client, connect_head, document

if TYPE_CHECKING:
    from pathlib import Path

    from tests.egress.conftest import Place

HOST = "api.allowed.test"
SECRET = "sk-live-9f8e7d6c5b4a3210+/x"
PLACEHOLDER = "sbxph_4f2a9c0d1e8b7a65"
RULE: dict[str, Any] = {
    "host": HOST,
    "set": {"Authorization": "Bearer ${secrets.key}"},
    "methods": None,
    "paths": None,
}
BOUND: dict[str, Any] = {"secret": "key", "value": PLACEHOLDER, "hosts": [HOST], "slots": ["header", "basic"]}


class ControlPlane:
    """Stands in for web. `asked` is what egress wanted to know."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        self.answer: Any = {
            "set": [["Authorization", f"Bearer {SECRET}"]],
            "swap": [[PLACEHOLDER, SECRET]],
            "needles": [SECRET],
        }
        self.silent = False
        self.hangs_up = False

    async def start(self) -> None:
        """Listen."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                said = json.loads(await reader.readexactly(size))
                self.asked.append((head.split(b" ")[1].decode(), said))
                if self.hangs_up:
                    self.hangs_up = False
                    return
                if not self.silent:
                    body = json.dumps(self.answer).encode()
                    writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (self.status, len(body)) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def stop(self) -> None:
        """Close it with all connections."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        self._path.unlink(missing_ok=True)


class Alice:
    """Her programs trust the sandbox's authority, and what `Place` has."""

    def __init__(self, place: Place, plane: ControlPlane) -> None:
        self.place = place
        self.plane = plane
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.bundle = ""

    async def put(self, *allowed: str, version: int = 1, listener: bool = False, **changes: Any) -> None:
        """Have egress obey a document: one rule for `HOST`, unless the changes say otherwise."""
        sock = self.place.alice.listener if listener else None
        said = document(*allowed, version=version, **({"rules": [RULE]} | changes))
        hosts = {rule["host"] for rule in said["rules"]}
        hosts |= {host for one in said["placeholders"] for host in one["hosts"]}
        if not hosts:
            await self.place.node.put(said, ident=ALICE)
            return
        self.bundle = certify(self.key, tuple(hosts)).public_bytes(serialization.Encoding.PEM).decode()
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        node = self.place.node
        ca = {"certificate": self.bundle, "key": key.decode()}
        done = await node.put(said, ident=ALICE, listener=sock, ca=ca)
        assert done == {"op": "done", "n": done["n"], "version": version}

    def context(self, *protocols: str) -> ssl.SSLContext:
        """Return what a client uses that trusts the sandbox's bundle."""
        context = ssl.create_default_context(cadata=self.bundle)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    async def https(
        self, host: str = HOST, *, authority: str = "", context: ssl.SSLContext | None = None, name: str | None = None
    ) -> Client:
        """Return a connection that looks like one to the host, by a tunnel to `authority`."""
        client = await self.place.alice.tunnel(authority or f"{host}:443")
        async with asyncio.timeout(20):
            await client.writer.start_tls(context or self.context("http/1.1"), server_hostname=name or host)
        return client

    async def ask(self, *lines: str, host: str = HOST, body: bytes = b"") -> Client:
        """Send one request to the host, and return the connection that its answer comes on."""
        client = await self.https(host)
        client.send(request(*lines, host=host, body=body))
        return client


def request(*lines: str, host: str = HOST, body: bytes = b"") -> bytes:
    """Return a request; the first line is its method and path."""
    first, *headers = lines or ("GET /",)
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{first} HTTP/1.1", f"Host: {host}", *headers, *length, "", ""]).encode() + body


__all__ = ["BOUND", "HOST", "PLACEHOLDER", "RULE", "SECRET", "Alice", "ControlPlane", "connect_head", "request"]
