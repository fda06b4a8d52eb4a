"""The node's settings: read once from the environment, never from a request."""

from __future__ import annotations

import grp
import hashlib
import ipaddress
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corekit.addresses import Address

_RESOLV_CONF = Path("/etc/resolv.conf")
# No system gives out groups from here on, up to the ids of sandboxes.
_FIRST_EGRESS_GID = 0x6F00_0000
_ROOT = Path(__file__).resolve().parents[2]


def _gid(group: str) -> int:
    # A missing group leaves the door to root alone: closed, not open.
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return 0


def _uids(*users: str) -> frozenset[int]:
    found = {0}
    for user in users:
        try:
            found.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            continue
    return frozenset(found)


def _positive(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, str(default))
    if not text.isdigit():
        raise SystemExit(f"{name} must be a whole number, not {text!r}.")
    return int(text)


def _namespace(name: str) -> Path | None:
    """Return where `ip netns` keeps a network namespace; exits with one sentence when it has none of this name."""
    if not name:
        return None
    path = Path("/run/netns", name)
    if path.parent != Path("/run/netns") or not path.exists():
        raise SystemExit(
            f"There is no network namespace {name!r}: make it with `ip netns add`, or unset GATEHOUSE_EGRESS_NETNS."
        )
    return path


def _resolvers(listed: str) -> tuple[Address, ...]:
    """Return the name servers that egress asks; exits with one sentence when one is no address."""
    words = listed.replace(",", " ").split() or _host_resolvers()
    try:
        return tuple(ipaddress.ip_address(word) for word in words)
    except ValueError as error:
        raise SystemExit(f"GATEHOUSE_EGRESS_RESOLVERS must list addresses of name servers: {error}.") from None


def _host_resolvers() -> list[str]:
    try:
        lines = [line.split() for line in _RESOLV_CONF.read_text().splitlines()]
    except OSError:
        return []
    return [words[1].partition("%")[0] for words in lines if len(words) > 1 and words[0] == "nameserver"]


@dataclass(frozen=True)
class NodeConfig:
    """Where the node keeps its things and how much it prepares. Counts are sandboxes, ratios are times the host."""

    home: Path
    bind: str
    port: int
    pool_size: int
    memory_overcommit: int
    disk_overcommit: int
    serve_gateway: bool
    serve_egress: bool
    egress_namespace: Path | None
    egress_resolvers: tuple[Address, ...]

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> NodeConfig:
        """Read GATEHOUSE_* variables; exits with one sentence when a value makes no sense."""
        return cls(
            home=Path(env.get("GATEHOUSE_HOME") or _ROOT / "var").resolve(),
            bind=env.get("GATEHOUSE_BIND", "127.0.0.1"),
            port=_positive(env, "GATEHOUSE_PORT", 8000),
            pool_size=_positive(env, "GATEHOUSE_POOL_SIZE", 32),
            memory_overcommit=_positive(env, "GATEHOUSE_MEMORY_OVERCOMMIT", 4),
            disk_overcommit=_positive(env, "GATEHOUSE_DISK_OVERCOMMIT", 4),
            serve_gateway=env.get("GATEHOUSE_NODE_GATEWAY", "1") != "0",
            serve_egress=env.get("GATEHOUSE_NODE_EGRESS", "1") != "0",
            egress_namespace=_namespace(env.get("GATEHOUSE_EGRESS_NETNS", "")),
            egress_resolvers=_resolvers(env.get("GATEHOUSE_EGRESS_RESOLVERS", "")),
        )

    @property
    def run(self) -> Path:
        """The directory of sockets."""
        return self.home / "run"

    @property
    def store(self) -> Path:
        """The node's own directory, closed to everybody else."""
        return self.home / "node"

    @property
    def egress_socket(self) -> Path:
        """Where egress hears of sandboxes and their policies."""
        return self.run / "egress.sock"

    @property
    def doors(self) -> Path:
        """The directory of the sockets that sandboxes see."""
        return self.run / "egress"

    @property
    def templates(self) -> Path:
        """The directory of template builds."""
        return self.home / "templates"

    @property
    def cgroup_name(self) -> str:
        """The name of this node's parent group; two nodes with different homes never share one."""
        return f"gatehouse-{self._mark}"

    @property
    def _mark(self) -> str:
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:8]

    @property
    def lock_name(self) -> str:
        """The name of the packet filter's table about egress; nodes with different homes never share one."""
        return f"gatehouse_egress_{self._mark}"

    @property
    def egress_gid(self) -> int:
        """The group of egress, which nobody else has: the packet filter tells by it which node's egress connects."""
        return _FIRST_EGRESS_GID + int(self._mark[:6], 16)

    @property
    def control_gid(self) -> int:
        """The group that may reach the internal API: web and worker."""
        return _gid("gatehouse")

    @property
    def gateway_gid(self) -> int:
        """The group that may reach guests, routes and the tap: the gateway alone."""
        return _gid("gatehouse-gateway")

    @property
    def control_uids(self) -> frozenset[int]:
        """The users whose requests the internal API answers."""
        return _uids("gatehouse-web", "gatehouse-worker")

    @property
    def egress_uid(self) -> int:
        """The user of egress; exits with one sentence when it is missing."""
        try:
            return pwd.getpwnam("gatehouse-egress").pw_uid
        except KeyError:
            raise SystemExit("The user gatehouse-egress is missing: run `manage.py bootstrap`.") from None

    @property
    def gateway_uids(self) -> frozenset[int]:
        """The users whose events the tap takes."""
        return _uids("gatehouse-gateway")
