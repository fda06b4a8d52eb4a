"""The servers of the tests' internet: real sockets that write down what reached them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.egress.nets import socket_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Listens at one address and port, and keeps what every connection sent."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = 0
        self.received = bytearray()
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, namespace: str, address: str, port: int, context: ssl.SSLContext | None = None) -> None:
        """Listen."""
        sock = socket_in(namespace)
        sock.bind((address, port))
        sock.listen(512)
        self._server = await asyncio.start_server(self._serve, sock=sock, ssl=context)

    async def start_unix(self, path: Path) -> None:
        """Listen at a path instead."""
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._handler(_Kept(reader, self), writer)  # type: ignore[arg-type]
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.ended.set()
            self._tasks.discard(task)
            writer.transport.abort()

    async def stop(self) -> None:
        """Close it with all connections."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Kept:
    """A reader that writes down what is read."""

    def __init__(self, reader: asyncio.StreamReader, server: Server) -> None:
        self._reader = reader
        self._server = server

    async def read(self, size: int = 65536) -> bytes:
        data = await self._reader.read(size)
        self._server.received += data
        self._server.began.set()
        return data

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        data = await self._reader.readuntil(separator)
        self._server.received += data
        self._server.began.set()
        return data

    async def readexactly(self, size: int) -> bytes:
        data = await self._reader.readexactly(size)
        self._server.received += data
        return data


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back."""
    while data := await reader.read():
        writer.write(data)
        await writer.drain()


async def hello_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, as a database does, then echo."""
    writer.write(b"ready\n")
    await echo(reader, writer)


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own head; `/close` ends the connection."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        body = await reader.readexactly(size) if size else b""
        if b"transfer-encoding: chunked" in head.lower():
            body = await _chunks(reader)
        answer = head + body
        extra = b"Connection: close\r\n" if head.split(b" ", 2)[1] == b"/close" else b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(answer), extra) + answer)
        await writer.drain()
        if extra:
            return


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int((await reader.readuntil(b"\r\n")).strip(), 16)
        piece = await reader.readexactly(size + 2)
        if not size:
            return body
        body += piece[:-2]


class Names:
    """An authoritative name server: what it is asked is written down, what it does not know is NXDOMAIN."""

    def __init__(self) -> None:
        self.zone: dict[str, list[str]] = {}
        self.aliases: dict[str, str] = {}
        self.ttl = 60
        self.asked: list[tuple[str, str]] = []
        self.truncate = False
        self.mute = False
        self.forge = False
        # By name: answers for the first, second … question.
        self.turns: dict[str, list[list[str]]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self, namespace: str, address: str) -> None:
        """Listen on both transports."""
        names = self
        loop = asyncio.get_running_loop()

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
                if not names.mute:
                    for answer in names.answers(data):
                        names._transport.sendto(answer, source)  # type: ignore[union-attr]

        udp = socket_in(namespace, socket.SOCK_DGRAM)
        udp.bind((address, 53))
        self._transport, _ = await loop.create_datagram_endpoint(Protocol, sock=udp)
        tcp = socket_in(namespace)
        tcp.bind((address, 53))
        tcp.listen(16)
        self._tcp = await asyncio.start_server(self._stream, sock=tcp)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = self._answer(dns.message.from_wire(await reader.readexactly(size))).to_wire()
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    def answers(self, data: bytes) -> list[bytes]:
        """Return the datagrams that a question is answered with."""
        query = dns.message.from_wire(data)
        if self.truncate:
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.TC
            return [answer.to_wire()]
        if self.forge:
            forged = self._answer(query)
            forged.id ^= 1
            other = dns.message.make_response(dns.message.make_query("other.test.", "A", id=query.id))
            other.answer.append(dns.rrset.from_text("other.test.", 60, "IN", "A", "45.79.1.66"))
            return [b"\0", forged.to_wire(), other.to_wire(), self._answer(query).to_wire()]
        return [self._answer(query).to_wire()]

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name = question.name.to_text().rstrip(".")
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        while name in self.aliases:
            target = self.aliases[name]
            answer.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "CNAME", f"{target}."))
            name = target
        turns = self.turns.get(name)
        addresses = turns.pop(0) if turns else self.zone.get(name)
        if addresses is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif kind == "A":
            answer.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "A", *addresses))
        return answer

    async def stop(self) -> None:
        """Close it."""
        assert self._transport is not None
        assert self._tcp is not None
        self._transport.close()
        self._tcp.close()


def certificate(directory: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a TLS server of these names uses, and what a client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    path = directory / f"{names[0]}.pem"
    path.write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


async def ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with two letters, whatever it says."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        if size:
            await reader.readexactly(size)
        if b"transfer-encoding: chunked" in head.lower():
            await _chunks(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()


def says(answer: bytes) -> Handler:
    """Return a handler that answers each request with this."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return handle
