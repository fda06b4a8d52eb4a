"""Leads what a sandbox sends anywhere to its guest agent, within the sandbox's own network namespace.

The namespace has nothing but `lo`. A route makes every IPv4 address one of this namespace, and rules turn connections
and questions for names around to the agent's two ports; all else is refused, and IPv6 has no route. It is a service to
programs that know no proxy and no wall: nothing outside relies on it.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from sandboxes.node.nft import Nft
from sandboxes.node.order import DNS_PORT, TRANSPARENT_PORT

# Connections are tracked to be turned around, in memory of the host's kernel and for up to two minutes each: the rate
# bounds what a sandbox can take there. What it sends to itself is not tracked.
_RULES = f"""
table ip gatehouse {{
    chain untracked {{
        type filter hook output priority raw; policy accept;
        ip daddr 127.0.0.0/8 th sport != {{ {TRANSPARENT_PORT}, {DNS_PORT} }} \
th dport != {{ 53, {TRANSPARENT_PORT}, {DNS_PORT} }} notrack
    }}
    chain turned {{
        type nat hook output priority -100; policy accept;
        limit rate over 400/second burst 800 packets drop
        meta l4proto {{ tcp, udp }} th dport 53 redirect to :{DNS_PORT}
        ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :{TRANSPARENT_PORT}
    }}
    chain refused {{
        type filter hook output priority filter; policy accept;
        ip daddr 127.0.0.0/8 accept
        ct state established,related accept
        reject with icmp type admin-prohibited
    }}
}}
"""
# From linux/netlink.h and linux/rtnetlink.h.
_RTM_NEWADDR, _RTM_NEWROUTE = 20, 24
_IFA_LOCAL = 2
_REQUEST_CREATE_ACK = 0x1 | 0x4 | 0x400
_RTA_OIF, _RTA_PREFSRC = 4, 7
_TABLE_LOCAL, _BOOT, _SCOPE_HOST, _TYPE_LOCAL = 255, 3, 254, 2
_NLMSG_ERROR = 2
# Many programs look for addresses of a family only when the machine has one, and 127.0.0.1 is none to them. This is the
# address that the guest agent gives the proxy's name.
_ADDRESS = "198.18.0.1"
_WHOLE_ADDRESS = 32


def prepare() -> None:
    """Load what the rules need, so that it is there in every process that is forked off."""
    # Whoever wants a namespace of this kind is told what is missing.
    with contextlib.suppress(OSError):
        Nft.load()


def lead_everything_here() -> None:
    """Set the caller's network namespace up. OSError when the kernel or a library can't."""
    lo = socket.if_nametoindex("lo")
    _give_address(lo)
    _route_everything_to(lo)
    Nft().run(_RULES)


def _give_address(link: int) -> None:
    # ifaddrmsg: family, length of the prefix, flags, scope, link
    message = struct.pack("=BBBBI", socket.AF_INET, _WHOLE_ADDRESS, 0, 0, link)
    _ask_kernel(_RTM_NEWADDR, message + struct.pack("=HH4s", 8, _IFA_LOCAL, socket.inet_aton(_ADDRESS)))


def _route_everything_to(link: int) -> None:
    # rtmsg: family, length of destination and source, tos, table, protocol, scope, type, flags
    route = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _TABLE_LOCAL, _BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0)
    # Answers then go to an address that no rule turns around.
    source = struct.pack("=HH4s", 8, _RTA_PREFSRC, socket.inet_aton("127.0.0.1"))
    _ask_kernel(_RTM_NEWROUTE, route + struct.pack("=HHI", 8, _RTA_OIF, link) + source)


def _ask_kernel(kind: int, body: bytes) -> None:
    head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_CREATE_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(head + body)
        answer = netlink.recv(4096)
    answered, error = struct.unpack_from("=4xH10xi", answer)
    if answered == _NLMSG_ERROR and error:
        raise OSError(-error, "the sandbox's network could not be set up")
