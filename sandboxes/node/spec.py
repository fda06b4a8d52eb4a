"""What a sandbox is to be: ids, digests and numbers only, checked field by field."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

from corekit.netrules.entries import RuleError
from corekit.netrules.policy import Policy
from sandboxes.node.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_SANDBOX_ID = re.compile(r"[a-z0-9]{1,64}")
_BUILD_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_HEX = re.compile(r"(?:[0-9a-f]{2}){1,64}")
_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
_AUDIT_KEY_ID = re.compile(r"[0-9a-z-]{1,16}")
_KEY_ID = re.compile(r"[0-9a-f]{16}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")
_MAX_ENV_BYTES = 128 * 1024
_MAX_TTL_MS = 31 * 24 * 3600 * 1000
# The end of the year 9999: later times are none to most programs.
_MAX_TIME_MS = 253_402_300_799_999
# A Host header as a server sees it: a name, an IPv4 address or an IPv6 address, then perhaps a port.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PORT = "${PORT}"
_MAX_HTTPS_PORTS = 128
_MAX_PORTS = 1_024
TIERS = ("language", "process", "container", "microvm")
PROFILES = ("hardened", "workstation")
# Who starts a container; "" leaves it to the node.
RUNTIMES = ("", "crun", "runc", "runsc")
# This one's kernel has a network of its own, in which nothing can be led elsewhere.
_EXPLICIT_ONLY = "runsc"
ON_TIMEOUT = ("kill", "pause")
NETWORK_MODES = ("none", "open")


@dataclass(frozen=True)
class Resources:
    """cpu in thousandths of a core, memory and disk in MiB, pids in processes and threads."""

    cpu_milli: int
    memory_mib: int
    disk_mib: int
    pids: int


# The node's own ceilings for one sandbox; a tenant's limits are lower and belong to the control plane.
_BOUNDS = {
    "cpu_milli": (10, 256_000),
    "memory_mib": (16, 1_048_576),
    "disk_mib": (16, 4_194_304),
    # The guest agent alone has two dozen threads.
    "pids": (64, 32_768),
}


@dataclass(frozen=True)
class Recipe:
    """What two sandboxes must share for one prepared member to serve either."""

    build: str
    tier: str
    profile: str
    resources: Resources
    runtime: str = ""
    network: str = "none"


@dataclass(frozen=True)
class Ingress:
    """How the sandbox's ports are reached from outside. The node only keeps it for the gateway.

    Ports that are not `public` need the `traffic_token`; `mask_host` is the Host that servers see, with `${PORT}` for
    the port; servers on `https_ports` speak TLS. `ports` are those that may be reached at all; None is all of them.
    """

    public: bool = True
    traffic_token: str = field(default="", repr=False)
    mask_host: str = ""
    https_ports: tuple[int, ...] = ()
    ports: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Network:
    """Whether there is a way out (`open`, else `none`), and the document that says where it leads.

    The document is egress's to obey: here it is checked, kept and passed on.
    """

    mode: str = "none"
    document: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def version(self) -> int | None:
        """Return which version of its document this is; None where there is none."""
        return None if self.document is None else int(self.document["version"])

    @property
    def private(self) -> list[IPv4Network | IPv6Network]:
        """Return the ranges beyond the public internet that an operator opened for it."""
        return [] if self.document is None else [ip_network(text) for text in self.document["private"]]

    @property
    def bound(self) -> tuple[str, ...]:
        """Return the hosts whose requests egress changes, for which it needs an authority. Few documents have any."""
        document = self.document
        if document is None or not (document["rules"] or document["placeholders"]):
            return ()
        return Policy.parse(document).bound


@dataclass(frozen=True)
class Spec:
    """One sandbox, as the control plane asked for it. Keys and grants never reach a log or the guest.

    `grants` maps an API key's id to the moment (epoch milliseconds) when its access ends, or None for no end.
    `audit_key_id` says which of the tenant's audit keys `audit_key` is; `copies_key` is the public key for encrypted
    copies of arguments, "" for a tenant that keeps none. `on_timeout` is what its deadline does: `kill`
    or `pause`. `auto_resume` lets the gateway wake it from a pause.
    """

    id: str
    generation: int
    tenant: str
    build: str
    tier: str
    profile: str
    resources: Resources
    env: dict[str, str]
    template_id: str
    ttl_ms: int
    access_key: str
    audit_key: str
    grants: dict[str, int | None]
    runtime: str = ""
    on_timeout: str = "kill"
    auto_resume: bool = False
    ingress: Ingress = field(default_factory=Ingress)
    audit_key_id: str = ""
    copies_key: str = ""
    network: Network = field(default_factory=Network)

    @property
    def recipe(self) -> Recipe:
        """Return the part that a pool can prepare ahead."""
        return Recipe(self.build, self.tier, self.profile, self.resources, self.runtime, self.network_mode)

    @property
    def network_mode(self) -> str:
        """Return how programs find the way out: `none`, by an explicit `proxy` only, or `transparent`."""
        if self.network.mode == "none":
            return "none"
        return "proxy" if self.runtime == _EXPLICIT_ONLY else "transparent"

    def with_grants(self, grants: dict[str, int | None]) -> Spec:
        """Return the same sandbox open to other keys."""
        return replace(self, grants=grants)

    def with_network(self, document: dict[str, Any], ports: tuple[int, ...] | None) -> Spec:
        """Return the same sandbox with another document, and other ports that may be reached from outside."""
        return replace(
            self, network=replace(self.network, document=document), ingress=replace(self.ingress, ports=ports)
        )

    def dump(self) -> bytes:
        """Return the spec as it is kept on disk."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def load(cls, data: bytes) -> Spec:
        """Read what `dump` wrote."""
        return parse_spec(json.loads(data))


def whole(body: dict[str, Any], name: str, low: int, high: int) -> int:
    """Return the whole number in `body[name]`; BadRequest unless low <= number <= high."""
    value = body.get(name)
    if type(value) is not int or not low <= value <= high:
        raise BadRequest(f"{name} must be a whole number from {low} to {high}.", field=name)
    return value


def matching(body: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    """Return the text in `body[name]`; BadRequest unless all of it matches."""
    value = body.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadRequest(f"{name} has the wrong form.", field=name)
    return value


def flag(body: dict[str, Any], name: str, *, default: bool) -> bool:
    """Return the truth value in `body[name]`; BadRequest when it is anything else."""
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false.", field=name)
    return value


def _choice(body: dict[str, Any], name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
    value = body.get(name, default)
    if value not in allowed:
        raise BadRequest(f"{name} must be one of {', '.join(word or 'empty' for word in allowed)}.", field=name)
    return str(value)


def _mapping(body: dict[str, Any], name: str, check: Callable[[Any, Any], bool]) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict) or not all(check(key, item) for key, item in value.items()):
        raise BadRequest(f"{name} has the wrong form.", field=name)
    return value


def _is_variable(name: Any, value: Any) -> bool:
    return isinstance(value, str) and _is_plain(value) and bool(_ENV_NAME.fullmatch(name))


def _is_plain(text: str) -> bool:
    # JSON may hold halves of characters, which no environment can.
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def is_grant(key_id: Any, expires_at: Any) -> bool:
    """Tell whether the pair is an API key's id and its end in epoch milliseconds (or None)."""
    in_time = expires_at is None or (type(expires_at) is int and 0 <= expires_at <= _MAX_TIME_MS)
    return in_time and bool(_KEY_ID.fullmatch(key_id))


def _runtime(body: dict[str, Any]) -> str:
    runtime = _choice(body, "runtime", RUNTIMES, default="")
    if runtime and body.get("tier") != "container":
        raise BadRequest("runtime must be empty unless tier is container.", field="runtime")
    return runtime


def _ingress(body: dict[str, Any]) -> Ingress:
    given = body.get("ingress", {})
    if not isinstance(given, dict):
        raise BadRequest("ingress must be an object.", field="ingress")
    public, token = flag(given, "public", default=True), given.get("traffic_token", "")
    if token != "":
        matching(given, "traffic_token", _HEX)
    elif not public:
        raise BadRequest("traffic_token is needed where public is false.", field="traffic_token")
    ports = served_ports(given, "ports")
    return Ingress(public, token, _mask_host(given), _https_ports(given), ports)


def _mask_host(ingress: dict[str, Any]) -> str:
    mask = ingress.get("mask_host", "")
    if not isinstance(mask, str) or (mask and not _HOST.fullmatch(mask.replace(_PORT, "65535"))):
        raise BadRequest("mask_host must be a host name, perhaps with a port.", field="mask_host")
    return mask


def _https_ports(ingress: dict[str, Any]) -> tuple[int, ...]:
    return _ports(ingress.get("https_ports", []), "https_ports", _MAX_HTTPS_PORTS)


def served_ports(body: dict[str, Any], name: str) -> tuple[int, ...] | None:
    """Return the ports in `body[name]`, or None where it is null or missing; BadRequest when it is anything else."""
    given = body.get(name)
    return None if given is None else _ports(given, name, _MAX_PORTS)


def _ports(ports: Any, name: str, most: int) -> tuple[int, ...]:
    if (
        not isinstance(ports, list)
        or len(ports) > most
        or not all(type(port) is int and 0 < port < 65536 for port in ports)
    ):
        raise BadRequest(f"{name} must be a list of at most {most} ports.", field=name)
    return tuple(ports)


def network_document(body: dict[str, Any]) -> dict[str, Any]:
    """Return the document in `body["document"]`; BadRequest names what of it egress would not obey."""
    document: Any = body.get("document")
    try:
        Policy.parse(document)
    except RuleError as error:
        field_name = f"document.{error.field}" if error.field else "document"
        raise BadRequest(f"{field_name}: {error}", field=field_name) from None
    return dict(document)


def _network(body: dict[str, Any]) -> Network:
    given = body.get("network")
    if given is None:
        return Network()
    if not isinstance(given, dict):
        raise BadRequest("network must be an object.", field="network")
    mode = _choice(given, "mode", NETWORK_MODES)
    return Network(mode, network_document(given)) if mode == "open" else Network()


def parse_spec(body: Any) -> Spec:
    """Turn a request's JSON into a spec; BadRequest names the first field that is wrong."""
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", field="body")
    resources = body.get("resources")
    if not isinstance(resources, dict):
        raise BadRequest("resources must be an object.", field="resources")
    env = _mapping(body, "env", _is_variable)
    if sum(len(name) + len(value.encode()) + 2 for name, value in env.items()) > _MAX_ENV_BYTES:
        raise BadRequest(f"env must fit in {_MAX_ENV_BYTES} bytes.", field="env")
    return Spec(
        id=matching(body, "id", _SANDBOX_ID),
        generation=whole(body, "generation", 1, 2**31),
        tenant=matching(body, "tenant", _HEX),
        build=matching(body, "build", _BUILD_ID),
        tier=_choice(body, "tier", TIERS),
        profile=_choice(body, "profile", PROFILES),
        resources=Resources(**{name: whole(resources, name, *bounds) for name, bounds in _BOUNDS.items()}),
        env=env,
        template_id=matching(body, "template_id", re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}")),
        ttl_ms=whole(body, "ttl_ms", 0, _MAX_TTL_MS),
        access_key=matching(body, "access_key", _HEX),
        audit_key=matching(body, "audit_key", _HEX),
        grants=_mapping(body, "grants", is_grant),
        runtime=_runtime(body),
        on_timeout=_choice(body, "on_timeout", ON_TIMEOUT, default="kill"),
        auto_resume=flag(body, "auto_resume", default=False),
        ingress=_ingress(body),
        audit_key_id=matching(body, "audit_key_id", _AUDIT_KEY_ID) if body.get("audit_key_id") else "",
        copies_key=matching(body, "copies_key", _PUBLIC_KEY) if body.get("copies_key") else "",
        network=_network(body),
    )
