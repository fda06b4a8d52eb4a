"""How a sandbox's ports may be reached from outside, as its owner chose when it was made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# As much of a Host header as anyone needs; nothing in it can end a header line.
_MASK = re.compile(r"[A-Za-z0-9.:${}\[\]_-]{1,255}")
_PORT = "${PORT}"


@dataclass(frozen=True, slots=True)
class Ingress:
    """The rules of the way in. Without `public` each request to a port carries the traffic token.

    `ports` are those that may be reached at all, None stands for every one.
    """

    public: bool = True
    traffic_token: str = field(default="", repr=False)
    mask_host: str = ""
    https_ports: frozenset[int] = frozenset()
    ports: frozenset[int] | None = None

    def serves(self, port: int) -> bool:
        """Say whether a port may be reached."""
        return self.ports is None or port in self.ports

    def host_for(self, port: int, given: bytes) -> bytes:
        """Return the Host that the server on a port sees, where the client gave this one."""
        return self.mask_host.replace(_PORT, str(port)).encode("ascii") if self.mask_host else given


OPEN = Ingress()


def parse(value: object) -> Ingress:
    """Read a route's rules; what is missing is as open as a new sandbox. Raises ValueError or TypeError."""
    if value is None:
        return OPEN
    if not isinstance(value, dict):
        raise TypeError("ingress")
    public, token = value.get("public", True), value.get("traffic_token", "")
    mask, served = value.get("mask_host", ""), value.get("ports")
    if not isinstance(public, bool) or not isinstance(token, str) or not isinstance(mask, str):
        raise TypeError("ingress")
    if mask and _MASK.fullmatch(mask) is None:
        raise ValueError("mask_host")
    return Ingress(
        public=public,
        traffic_token=token,
        mask_host=mask,
        https_ports=_ports(value.get("https_ports", []), "https_ports"),
        ports=None if served is None else _ports(served, "ports"),
    )


def _ports(value: object, name: str) -> frozenset[int]:
    if not isinstance(value, list) or not all(type(port) is int and 0 < port < 65536 for port in value):
        raise ValueError(name)
    return frozenset(value)
