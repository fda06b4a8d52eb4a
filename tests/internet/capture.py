"""What comes over the link, as the kernel sees it: no server need listen for a packet to be counted."""

from __future__ import annotations

import ctypes
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_OUTGOING = 4
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp", 47: "gre"}
# Frames that are of interest: everything but ARP and TCP that belongs to a connection. A bulk transfer costs nothing.
_FILTER = (
    (0x28, 0, 0, 12),  # load the frame's type
    (0x15, 8, 0, 0x0806),  # ARP: drop
    (0x15, 0, 6, 0x0800),  # not IPv4: accept
    (0x30, 0, 0, 23),  # load the protocol
    (0x15, 0, 4, 6),  # not TCP: accept
    (0xB1, 0, 0, 14),  # the header's length
    (0x50, 0, 0, 27),  # load the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK
    (0x15, 0, 1, 0x02),  # not a first SYN: drop
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet from egress: of a connection only the first. Another family's has its number as `protocol`."""

    protocol: str
    to: str = ""
    port: int = 0
    payload: bytes = b""


class Capture:
    """Reads packets from a link of this thread's namespace. The newest `most` are kept."""

    def __init__(self, link: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _FILTER))
        fprog = struct.pack("HL", len(_FILTER), ctypes.addressof(program))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        self.socket.bind((link, _ETH_P_ALL))
        self.packets: list[Packet] = []

    def read(self) -> None:
        """Take what has come."""
        while True:
            try:
                frame, address = self.socket.recvfrom(65_536)
            except BlockingIOError:
                return
            # What the servers answer is no packet from egress.
            if address[2] != _OUTGOING:
                self.packets.append(_packet(frame))


def _packet(frame: bytes) -> Packet:
    family = int.from_bytes(frame[12:14], "big")
    if family != 0x0800:
        return Packet(hex(family))
    header = (frame[14] & 0xF) * 4
    number = frame[23]
    to = str(IPv4Address(frame[30:34]))
    body = frame[14 + header :]
    if number not in (6, 17):
        return Packet(_PROTOCOLS.get(number, str(number)), to)
    port = int.from_bytes(body[2:4], "big")
    return Packet(_PROTOCOLS[number], to, port, body[8:] if number == 17 else b"")
