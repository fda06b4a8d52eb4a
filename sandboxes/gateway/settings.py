"""The gateway's settings: a pure function of the environment, with every limit in one place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client or one guest may use. Sizes are in bytes, times in seconds."""

    header_line: int = 16 * KIB  # also the longest URL
    header_count: int = 100
    header_seconds: float = 20.0
    keepalive_seconds: float = 660.0  # above the 300 s that SDK clients keep a connection
    client_connections: int = 8192
    message: int = 4 * MIB  # a unary body, or the first envelope of a stream
    message_seconds: float = 30.0
    small_body: int = 64 * KIB  # bodies up to here are read whole and sent with the head
    idle_seconds: float = 660.0  # silence on a stream
    upgraded_idle_seconds: float = 3600.0
    connect_seconds: float = 5.0
    # Together with idle connections these stay below the 512 that a guest agent accepts.
    streams_per_sandbox: int = 400
    tunnels_per_sandbox: int = 440
    signature_candidates: int = 4096
    signature_scans_per_second: float = 20.0
    intent_seconds: float = 5.0
    waiting_intents: int = 4096
    waiting_results: int = 20_000
    route_wait_seconds: float = 0.15  # how long an id that was never seen may still arrive
    # Shorter than the 5 s after which the node gives up waiting for the end.
    drain_seconds: float = 2.0
    resume_seconds: float = 30.0  # how long a request waits for its paused sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Where the gateway listens and whom it talks to."""

    edge_socket: Path
    tap_socket: Path
    web_socket: Path
    internal_socket: Path
    domain: str = ""
    listen_fd: int | None = None
    bind: str = "127.0.0.1"
    port: int = 8000
    log_level: str = "INFO"
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def under(cls, home: Path, *, domain: str = "", limits: Limits | None = None) -> GatewaySettings:
        """Return settings for the sockets below one GATEHOUSE_HOME."""
        run = home / "run"
        return cls(
            edge_socket=run / "edge.sock",
            tap_socket=run / "tap.sock",
            web_socket=run / "web.sock",
            internal_socket=run / "internal.sock",
            domain=domain,
            limits=limits or Limits(),
        )


def _number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def from_environment(environ: Mapping[str, str]) -> GatewaySettings:
    """Read the settings. Raises ValueError with one sentence that names the variable at fault."""
    home = environ.get("GATEHOUSE_HOME", "").strip()
    if not home:
        raise ValueError("GATEHOUSE_HOME must name the folder that holds run/")
    descriptor = environ.get("GATEHOUSE_LISTEN_FD", "").strip()
    return replace(
        GatewaySettings.under(Path(home).absolute()),
        domain=environ.get("GATEHOUSE_DOMAIN", "").strip().strip(".").lower(),
        listen_fd=_number(environ, "GATEHOUSE_LISTEN_FD", 0, 3, 65535) if descriptor else None,
        bind=environ.get("GATEHOUSE_BIND", "").strip() or "127.0.0.1",
        port=_number(environ, "GATEHOUSE_PORT", 8000, 1, 65535),
        log_level=environ.get("GATEHOUSE_LOG_LEVEL", "").strip() or "INFO",
    )
