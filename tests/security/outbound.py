"""Somebody in a sandbox who wants out, the internet that she wants to reach, and what the node recorded of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.node.rig import eventually, open_network

if TYPE_CHECKING:
    from sandboxes.node.sandbox import Sandbox
    from tests.internet.world import Internet
    from tests.node.rig import Rig
    from tests.security.inside import Inside

RULES = (
    "api.allowed.test:443",
    "pypi.allowed.test:443",
    "*.wild.allowed.test:443",
    "plain.allowed.test:80",
    "db.allowed.test:5432",
    "münchen.test:443",
)
"""What the sandboxes of these tests may reach, unless they say otherwise."""

# What every program may use. `direct` goes out as programs do that know no proxy, `tunnel` and `proxied` ask the proxy.
_CLIENT = r"""
import socket, ssl, struct
PROXY = ("127.0.0.1", 3128)
LIMIT = 8

def name_of(error):
    if isinstance(error, socket.gaierror):
        return "no address"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "ETIMEDOUT"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno in errno.errorcode:
        return errno.errorcode[error.errno]
    return type(error).__name__

def outcome_of(act):
    "Return what an act returns, or the name of its error."
    try:
        return act()
    except OSError as error:
        return name_of(error)

def all_of(sock, most=65536):
    data = b""
    while len(data) < most:
        piece = sock.recv(most - len(data))
        if not piece:
            break
        data += piece
    return data

def direct(host, port, data=b"", read=True):
    "Connect without a proxy, send, and return all that comes until the end, or the name of the error."
    def act():
        with socket.create_connection((host, port), LIMIT) as sock:
            sock.sendall(data)
            return (all_of(sock) if read else b"").decode("latin-1")
    return outcome_of(act)

def head_of(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(1)
        if not piece:
            break
        data += piece
    return data.decode("latin-1")

def status_of(head):
    "Return status and reason of an answer of the proxy."
    status = int(head.split(" ")[1]) if head.startswith("HTTP/1.1 ") else None
    lines = [line.partition(": ") for line in head.split("\r\n")]
    return [status, *(value for name, _, value in lines if name == "Gatehouse-Reason")]

def tunnel(authority, headers=b""):
    "Return the proxy's answer to CONNECT, and the connection. Bytes are sent in the older form, which names no Host."
    sock = socket.create_connection(PROXY, LIMIT)
    if isinstance(authority, str):
        authority = authority.encode()
        headers = b"Host: " + authority + b"\r\n" + headers
    version = b"1.1" if headers else b"1.0"
    sock.sendall(b"CONNECT " + authority + b" HTTP/" + version + b"\r\n" + headers + b"\r\n")
    return status_of(head_of(sock)), sock

def connect(authority, headers=b""):
    "Return what the proxy answers to CONNECT."
    return outcome_of(lambda: tunnel(authority, headers)[0])

def proxied(request):
    "Send raw bytes to the proxy and return all that it answers."
    def act():
        with socket.create_connection(PROXY, LIMIT) as sock:
            sock.sendall(request)
            return all_of(sock).decode("latin-1")
    return outcome_of(act)

def context_of(verify=True):
    context = ssl.create_default_context(cadata=CA)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

def fetch(sock, name, host=None, path="/"):
    "Get a page over TLS on a connection; return the answer, or the name of the error."
    def act():
        with context_of(name is not None).wrap_socket(sock, server_hostname=name) as tls:
            tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {host or name}\r\nConnection: close\r\n\r\n".encode())
            return all_of(tls).decode("latin-1")
    return outcome_of(act)

def https(name, host=None, path="/", port=443, at=None):
    "Get a page as programs do that know no proxy."
    return outcome_of(lambda: fetch(socket.create_connection((at or name, port), LIMIT), name, host, path))

def hello(name):
    "Return the first bytes of a TLS client."
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context_of(name is not None).wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()

def with_extension(data, kind, body):
    "Return a TLS greeting with one more extension."
    place = 5 + 4 + 2 + 32
    place += 1 + data[place]
    place += 2 + int.from_bytes(data[place:place + 2], "big")
    place += 1 + data[place]
    extensions = data[place + 2:] + struct.pack(">HH", kind, len(body)) + body
    handshake = data[9:place] + struct.pack(">H", len(extensions)) + extensions
    handshake = data[5:6] + len(handshake).to_bytes(3, "big") + handshake
    return data[:3] + struct.pack(">H", len(handshake)) + handshake

def greet(sock, data):
    "Send a greeting and return the kind of record that answers it, 22 of a handshake; or the name of the error."
    def act():
        sock.sendall(data)
        got = sock.recv(1)
        return got[0] if got else "closed"
    return outcome_of(act)

"""


@dataclass
class Outbound:
    """A user of a sandbox that has a way out."""

    rig: Rig
    internet: Internet
    inside: Inside
    _seen: int = field(default=0)

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox."""
        return self.inside.sandbox

    async def run(self, program: str) -> Any:
        """Return what a Python program in the sandbox passes to `answer`."""
        return await self.inside.python(f"CA = '''{self.internet.authority.pem}'''\n{_CLIENT}\n{program}")

    async def change(self, *rules: str, version: int, **changes: Any) -> None:
        """Replace what the sandbox may reach, as the control plane does."""
        document = open_network(*rules, version=version, **changes)["network"]["document"]
        spec = self.sandbox.spec
        assert await self.rig.keeper.set_network(spec.id, spec.generation, document, spec.ingress.ports) == version

    def recorded(self, *codes: str) -> list[dict[str, Any]]:
        """Return what the node has in its spool of the sandbox's flows, oldest first."""
        return [
            event
            for event in self.rig.events(self.sandbox.spec.id)
            if (event["code"] in codes if codes else event["code"].startswith("egress."))
        ]

    async def refusals(self, *expected: tuple[str, str | None, int | None]) -> None:
        """Return once exactly these refusals are recorded: reason, host and port, in any order."""
        await self._recorded("egress.denied", sorted(expected, key=repr))

    async def names_refused(self, *expected: tuple[str, str]) -> None:
        """Return once exactly these refusals to resolve are recorded: reason and name."""
        await self._recorded("egress.dns_denied", sorted(expected, key=repr))

    async def _recorded(self, code: str, expected: list[Any]) -> None:
        def told() -> list[Any]:
            keys = ("host", "port") if code == "egress.denied" else ("host",)
            found = {(one["reason"], *(one["details"].get(key) for key in keys)) for one in self.recorded(code)}
            return sorted(found, key=repr)

        try:
            await eventually(lambda: told() == expected)
        except AssertionError:
            assert told() == expected, told()

    async def passed(self) -> dict[str, Any]:
        """Return the event of the one flow that passed and ended."""
        await eventually(lambda: self.recorded("egress.closed"))
        (event,) = self.recorded("egress.closed")
        return event

    def reached_nothing(self) -> None:
        """Fail when anything of the internet, or of egress's own host, was connected to."""
        assert not self.internet.sites.connections, self.internet.sites.connections
        assert not self.internet.own.connections, self.internet.own.connections
        connections = [packet for packet in self.internet.packets if packet.protocol != "udp"]
        assert not connections, connections

    def asked_nobody(self) -> None:
        """Fail when any name server was asked anything, or any datagram left."""
        assert not self.internet.zone.questions, self.internet.zone.questions
        datagrams = [packet for packet in self.internet.packets if packet.protocol == "udp"]
        assert not datagrams, datagrams
