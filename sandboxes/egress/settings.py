"""What one egress process is told by its environment, and how long and how much it waits and keeps."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corekit.addresses import Address

KIB = 1024
MIB = 1024 * KIB
_RESOLV_CONF = Path("/etc/resolv.conf")
_DNS_PORT = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of what any sandbox may cost. Policies have their own, narrower ones for flows."""

    head: int = 32 * KIB
    head_seconds: float = 10.0
    sniff_seconds: float = 10.0
    hello: int = 32 * KIB
    resolve_seconds: float = 5.0
    connect_seconds: float = 10.0
    sweep_seconds: float = 1.0
    opened_seconds: float = 60.0  # a flow that lives longer is recorded before its end
    repeat_seconds: float = 10.0  # equal refusals within this time are one event
    idle_seconds: float = 300.0
    # Shorter than the 5 s after which the node gives up waiting for the end.
    farewell_seconds: float = 1.0  # how long the node may take for the last events
    connections: int = 8192  # of one sandbox whose policy sets no limit of flows
    spare_connections: int = 64
    events_per_sandbox: int = 2048
    events: int = 65_536
    names_per_s: float = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """Where egress listens for its node and whom it asks for addresses."""

    home: Path
    resolvers: tuple[tuple[str, int], ...]
    control_fd: int | None = None
    broker_socket: Path | None = None
    ca_file: Path | None = None
    ipv6: bool = False
    own: frozenset[Address] = frozenset()
    log_level: str = "INFO"
    limits: Limits = field(default_factory=Limits)

    @property
    def control_socket(self) -> Path:
        """The socket that the node connects to, for a process that was not handed one."""
        return self.home / "run" / "egress.sock"

    @property
    def internal_socket(self) -> Path:
        """The control plane's socket for the processes of this host."""
        return self.home / "run" / "internal.sock"

    @property
    def proxy_logins(self) -> Path:
        """The file that holds the credentials of corporate proxies."""
        return self.home / "egress" / "via.json"


def _servers_of(text: str, variable: str) -> tuple[tuple[str, int], ...]:
    servers = []
    for part in text.replace(",", " ").split():
        try:
            servers.append((str(ipaddress.ip_address(part)), _DNS_PORT))
        except ValueError:
            raise ValueError(f"{variable} must list addresses of name servers, not {part!r}") from None
    return tuple(servers)


def _host_resolvers() -> tuple[tuple[str, int], ...]:
    try:
        lines = _RESOLV_CONF.read_text().splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    found = [word[1].partition("%")[0] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return _servers_of(" ".join(found), str(_RESOLV_CONF))


def _addresses(text: str, variable: str) -> frozenset[Address]:
    try:
        return frozenset(ipaddress.ip_address(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"{variable} must list addresses: {error}") from None


def _descriptor(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or int(text) < 3:
        raise ValueError(f"GATEHOUSE_EGRESS_CONTROL_FD must be the number of an inherited descriptor, not {text!r}")
    return int(text)


def from_environment(environ: Mapping[str, str], limits: Limits | None = None) -> EgressSettings:
    """Read the settings. Raises ValueError with one sentence that names the variable at fault."""

    def value(name: str) -> str:
        return environ.get(name, "").strip()

    home = value("GATEHOUSE_HOME")
    if not home:
        raise ValueError("GATEHOUSE_HOME must name the folder that holds run/")
    listed = value("GATEHOUSE_EGRESS_RESOLVERS")
    broker, authorities = value("GATEHOUSE_BROKER_SOCKET"), value("GATEHOUSE_EGRESS_CA_FILE")
    return EgressSettings(
        home=Path(home).absolute(),
        resolvers=_servers_of(listed, "GATEHOUSE_EGRESS_RESOLVERS") if listed else _host_resolvers(),
        control_fd=_descriptor(value("GATEHOUSE_EGRESS_CONTROL_FD")),
        broker_socket=Path(broker) if broker else None,
        ca_file=Path(authorities) if authorities else None,
        ipv6=value("GATEHOUSE_EGRESS_IPV6") == "1",
        own=_addresses(value("GATEHOUSE_EGRESS_OWN"), "GATEHOUSE_EGRESS_OWN"),
        log_level=value("GATEHOUSE_LOG_LEVEL") or "INFO",
        limits=limits or Limits(),
    )
