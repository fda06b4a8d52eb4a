"""The name servers: answers for every name there is, as the tests wish, and a record of every question."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Callable

PORT = 53


@dataclass(frozen=True, slots=True)
class Question:
    """What a name server was asked. `name` is as it was written, without the last dot."""

    name: str
    kind: str
    transport: str


@dataclass(slots=True)
class Zone:
    """All names: what each stands for, and what was asked.

    A record is `(kind, value)`, as `("A", "45.79.1.10")` or `("CNAME", "other.test")`. A script is called with how
    often its name was asked before and gives the records.
    """

    records: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    scripts: dict[str, Callable[[int], list[tuple[str, str]]]] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    ttl: int = 0
    silent: bool = False

    def address(self, name: str, *addresses: str) -> None:
        """Let a name have these addresses and no others."""
        self.records[name] = [("AAAA" if ":" in one else "A", one) for one in addresses]

    def alias(self, name: str, target: str) -> None:
        """Let a name be an alias of another."""
        self.records[name] = [("CNAME", target)]

    def asked(self, name: str) -> int:
        """Return how often a name was asked for, in any case of its letters."""
        return sum(question.name.lower() == name for question in self.questions)

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        """Return the answer to a message, None to stay silent."""
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return None
        name = question.name.to_text(omit_final_dot=True)
        asked_before = self.asked(name.lower())
        self.questions.append(Question(name, dns.rdatatype.to_text(question.rdtype), transport))
        if self.silent:
            return None
        answer = dns.message.make_response(query, recursion_available=True)
        answer.flags |= dns.flags.AA
        if not self._fill(answer, question.name, question.rdtype, asked_before):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if transport == "udp" and len(answer.to_wire()) > 1232:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
        return answer.to_wire()

    def _fill(
        self, answer: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType, asked_before: int
    ) -> bool:
        for _ in range(8):
            records = self._of(name.to_text(omit_final_dot=True).lower(), asked_before)
            if records is None:
                return bool(answer.answer)
            found = [value for one, value in records if one == dns.rdatatype.to_text(kind)]
            if found:
                answer.answer.append(dns.rrset.from_text(name, self.ttl, "IN", dns.rdatatype.to_text(kind), *found))
                return True
            alias = next((value for one, value in records if one == "CNAME"), None)
            if alias is None:
                return True
            target = dns.name.from_text(alias)
            answer.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", target.to_text()))
            name = target
        return True

    def _of(self, name: str, asked_before: int) -> list[tuple[str, str]] | None:
        if name in self.scripts:
            return self.scripts[name](asked_before)
        if name in self.records:
            return self.records[name]
        parent = name.partition(".")[2]
        while parent:
            if f"*.{parent}" in self.records:
                return self.records[f"*.{parent}"]
            parent = parent.partition(".")[2]
        return None


class DatagramServer(asyncio.DatagramProtocol):
    """Answers questions that come in datagrams."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Take the socket."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one."""
        answer = self._zone.answer(data, "udp")
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


async def serve_stream(zone: Zone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer questions that come over a connection."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = zone.answer(await reader.readexactly(size), "tcp")
            if answer is not None:
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
    writer.close()
