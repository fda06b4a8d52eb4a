"""A stub resolver of egress's own: fixed servers, no hosts file, no search list, no answer that was not asked for."""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

if TYPE_CHECKING:
    from corekit.addresses import Address

_PAYLOAD = 1232
_MOST_BYTES = 64 * 1024
_LONGEST_CHAIN = 8
_LONGEST_TTL = 60.0
_TRIES = 2


class ResolveFailed(Exception):
    """No server gave an address for the name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """All addresses of a name, and how many seconds they may be kept."""

    addresses: tuple[Address, ...]
    ttl: float


class Resolver:
    """Asks the servers in turn."""

    def __init__(self, servers: tuple[tuple[str, int], ...], *, seconds: float, ipv6: bool = False) -> None:
        self._servers = servers
        self._seconds = seconds
        self._kinds = (dns.rdatatype.A, dns.rdatatype.AAAA) if ipv6 else (dns.rdatatype.A,)

    async def resolve(self, name: str) -> Answer:
        """Return the addresses of a name. Raises ResolveFailed."""
        answers = await asyncio.gather(*(self._one(name, kind) for kind in self._kinds), return_exceptions=True)
        for answer in answers:
            # Also when the other family was found: half an answer could hide an address that nobody may reach.
            if isinstance(answer, BaseException):
                raise answer
        found = [answer for answer in answers if isinstance(answer, Answer)]
        addresses = tuple(address for answer in found for address in answer.addresses)
        if not addresses:
            raise ResolveFailed("no address")
        return Answer(addresses, min(answer.ttl for answer in found))

    async def _one(self, name: str, kind: dns.rdatatype.RdataType) -> Answer:
        try:
            query = dns.message.make_query(
                f"{name}.", kind, use_edns=0, payload=_PAYLOAD, id=secrets.randbelow(65536), flags=dns.flags.RD
            )
        except dns.exception.DNSException as error:
            raise ResolveFailed(str(error)) from None
        try:
            async with asyncio.timeout(self._seconds):
                return _answer_of(await self._ask(query), query, kind)
        except TimeoutError:
            raise ResolveFailed("no name server answered") from None

    async def _ask(self, query: dns.message.Message) -> dns.message.Message:
        wire = query.to_wire()
        share = self._seconds / max(1, _TRIES * len(self._servers))
        for _ in range(_TRIES):
            for server in self._servers:
                try:
                    async with asyncio.timeout(share):
                        answer = await self._exchange(server, query, wire)
                except (TimeoutError, OSError, EOFError):
                    continue
                if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return answer
        raise ResolveFailed("no name server answered")

    async def _exchange(self, server: tuple[str, int], query: dns.message.Message, wire: bytes) -> dns.message.Message:
        answer = await _by_udp(server, query, wire)
        if answer.flags & dns.flags.TC:
            answer = await _by_tcp(server, query, wire)
        return answer


def _family(server: tuple[str, int]) -> int:
    return socket.AF_INET6 if ip_address(server[0]).version == 6 else socket.AF_INET


def _fitting(data: bytes, query: dns.message.Message) -> dns.message.Message | None:
    try:
        answer = dns.message.from_wire(data, ignore_trailing=False)
    except dns.exception.DNSException:
        return None
    return answer if query.is_response(answer) and answer.question else None


async def _by_udp(server: tuple[str, int], query: dns.message.Message, wire: bytes) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    # A socket for each question has a port that nobody can guess, and takes datagrams of this server only.
    with socket.socket(_family(server), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(server)
        sock.send(wire)
        while True:
            answer = _fitting(await loop.sock_recv(sock, _MOST_BYTES), query)
            if answer is not None:
                return answer


async def _by_tcp(server: tuple[str, int], query: dns.message.Message, wire: bytes) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with socket.socket(_family(server), socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, server)
        await loop.sock_sendall(sock, len(wire).to_bytes(2, "big") + wire)
        size = int.from_bytes(await _exactly(sock, 2), "big")
        answer = _fitting(await _exactly(sock, size), query)
    if answer is None:
        raise EOFError
    return answer


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _answer_of(message: dns.message.Message, query: dns.message.Message, kind: dns.rdatatype.RdataType) -> Answer:
    """Follow the aliases from the name that was asked for; other records of the answer count nothing."""
    name, ttl = query.question[0].name, _LONGEST_TTL
    for _ in range(_LONGEST_CHAIN):
        for found in message.answer:
            if found.name == name and found.rdtype == kind:
                addresses = tuple(ip_address(record.address) for record in found)
                return Answer(addresses, min(ttl, found.ttl))
        alias = next((one for one in message.answer if one.name == name and one.rdtype == dns.rdatatype.CNAME), None)
        if alias is None:
            return Answer((), ttl)
        name, ttl = alias[0].target, min(ttl, alias.ttl)
    raise ResolveFailed("too many aliases")
