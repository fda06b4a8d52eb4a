"""From policies to the document that a sandbox's node gets and its egress process obeys.

A flow passes when no entry of `deny` matches and every layer allows it. So the tenant's ceiling is a layer of its own:
whatever a sandbox asks for can only narrow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db.models import Q

from corekit.errors import InvalidInput
from tenants.models import Bundle, NetworkPolicy, PlatformNetwork, Tenant, TenantNetwork
from tenants.networks.presets import CLOSED, ISOLATED, PROXY, RESTRICTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NONE, OPEN = "none", "open"
LIMITS: Mapping[str, int | None] = {"flows": 256, "new_per_s": 50, "bytes_out": None, "idle_s": 300}
"""What a sandbox gets where no policy says less; None is no limit."""
_EVERYWHERE = "0.0.0.0/0"
_ALL_PORTS = "1-65535"
_WEB_PORTS = (443, 80)


@dataclass(frozen=True, slots=True)
class E2BNetwork:
    """What a create or a change asks for in E2B's words. An allow list denies the rest, whatever `deny_out` says."""

    allow_internet_access: bool | None = None
    allow_out: Sequence[str] = ()
    deny_out: Sequence[str] = ()
    egress_proxy: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a sandbox starts with, or is changed to.

    `mode` "none" is a sandbox without a network for its whole life. `ingress_ports` None serves every port;
    `environment` is for the sandbox's commands, where the user's own variables don't say otherwise.
    """

    mode: str
    document: dict[str, Any]
    policy_name: str = ""
    policy_version: int | None = None
    ingress_ports: tuple[int, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def compile_network(
    tenant: Tenant,
    *,
    policy: str | None = None,
    e2b: E2BNetwork | None = None,
    version: int = 1,
    running: bool = False,
) -> Compiled:
    """Return what a sandbox of a tenant gets: under a policy, under E2B's lists, or under the tenant's default.

    Where no default was set, and for E2B's "allow all", it is the tenant's ceiling alone. With `running` a deleted
    policy still counts, for what was started with it. Raises InvalidInput for a policy that the tenant has not.
    """
    network = network_of(tenant)
    if policy is None and e2b is None and network.default is None:
        e2b = E2BNetwork()
    named = network.default if policy is None and e2b is None else None
    if policy is not None:
        named = policy_named(tenant, policy, running=running)
    layers = [e2b_layer(e2b)] if e2b is not None else []
    if named is not None and (chosen := policy_layer(named.spec)) is not None:
        layers.append(chosen)
    compiled = compose(network, spec=named.spec if named is not None else None, layers=layers, e2b=e2b, version=version)
    if named is None:
        return Compiled(OPEN, compiled)
    ingress = named.spec["ingress"]
    # A promise for life is made by the platform's own policy alone; every other one may change while sandboxes run.
    without = named.tenant_id is None and named.name == ISOLATED
    return Compiled(
        NONE if without else OPEN,
        compiled,
        policy_name=named.name,
        policy_version=named.version,
        ingress_ports=None if ingress is None else tuple(ingress),
        environment=_environment(named.spec),
    )


def compose(
    network: TenantNetwork,
    *,
    spec: Mapping[str, Any] | None,
    layers: Sequence[Mapping[str, Any]],
    e2b: E2BNetwork | None = None,
    version: int = 1,
) -> dict[str, Any]:
    """Return the document of these layers under a tenant's ceiling; `spec` is the policy that they come from."""
    ceiling = ceiling_of(network)
    # What the ceiling does not say is the platform's own limit; what a policy does not say is the ceiling's.
    specs = [{**ceiling, "limits": {**LIMITS, **ceiling["limits"]}}, *([spec] if spec is not None else [])]
    every = [*layers, {**_layer("tenant", ceiling), **({"mode": "allow"} if network.public_internet else {})}]
    bundles = _bundles(every)
    private = {address for bundle in bundles.values() for address in bundle.private}
    platform = PlatformNetwork.objects.first()
    return {
        "version": version,
        "layers": [{**layer, "egress": _expand(layer["egress"], bundles)} for layer in every],
        "deny": list(platform.deny) if platform is not None else [],
        "private": sorted({*network.private_ranges, *private}),
        "dns": all(one["dns"] for one in specs) and not (spec is not None and _is_proxy_only(spec)),
        "via": next((one["via"] for one in specs if one["via"]), None),
        "egress_proxy": dict(e2b.egress_proxy) if e2b is not None and e2b.egress_proxy else None,
        "limits": {name: _least(name, specs) for name in LIMITS},
        "tls": {
            "sni": "require" if any(one["tls"]["sni"] == "require" for one in specs) else "log",
            "ech": "deny" if any(one["tls"]["ech"] == "deny" for one in specs) else "allow",
        },
        # What is set on requests is a sandbox's, not its tenant's: whoever creates it adds that.
        "rules": [],
        "placeholders": [],
    }


def network_of(tenant: Tenant | None) -> TenantNetwork:
    """Return a tenant's network settings, with its policies; those of a new tenant when it has no row."""
    if tenant is None:
        return TenantNetwork()
    rows = TenantNetwork.everywhere().select_related("default", "ceiling")
    return rows.filter(pk=tenant.pk).first() or TenantNetwork(tenant=tenant)


def ceiling_of(network: TenantNetwork) -> dict[str, Any]:
    """Return the spec of a tenant's ceiling. What is missing allows nothing."""
    policy = network.ceiling or NetworkPolicy.objects.filter(tenant=None, name=RESTRICTED, deleted_at=None).first()
    return dict(policy.spec) if policy is not None else dict(CLOSED)


def policy_named(tenant: Tenant | None, name: str, *, running: bool = False) -> NetworkPolicy:
    """Return a tenant's policy of a name, else the platform's. Raises InvalidInput."""
    rows = NetworkPolicy.objects.filter(Q(tenant=tenant) | Q(tenant=None), name=name)
    found = list(rows if running else rows.filter(deleted_at=None))
    if not found:
        raise InvalidInput(f"There is no network policy {name[:63]!r}.", field="network")
    # What is not deleted comes first, then what is the tenant's own, then what was deleted last.
    return max(found, key=_precedence)


def _precedence(policy: NetworkPolicy) -> tuple[bool, bool, float]:
    deleted_at = policy.deleted_at
    return deleted_at is None, policy.tenant_id is not None, deleted_at.timestamp() if deleted_at else 0.0


def policy_layer(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a policy as a layer; None for one that leaves all names to the ceiling, reached by the proxy alone."""
    return None if _is_proxy_only(spec) else _layer("sandbox", spec)


def _layer(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    # The alias of the proxy is no place outside: what is asked of the proxy is judged by its own name.
    egress = [entry for entry in spec["egress"] if entry != PROXY]
    return {"name": name, "mode": spec["mode"], "first": "deny", "egress": egress}


def _is_proxy_only(spec: Mapping[str, Any]) -> bool:
    allowed = [entry for entry in spec["egress"] if not entry.startswith("!")]
    return allowed == [PROXY] and spec["mode"] == "deny"


def e2b_layer(e2b: E2BNetwork) -> dict[str, Any]:
    """Return E2B's lists as a layer. There, what is allowed wins over what is denied."""
    closed = bool(e2b.allow_out) or e2b.allow_internet_access is False or _EVERYWHERE in e2b.deny_out
    any_name = "*" in e2b.allow_out
    egress = [entry for host in e2b.allow_out if host != "*" for entry in _e2b_entries(host)]
    egress += [f"!{host}:{_ALL_PORTS}" for host in e2b.deny_out if host != _EVERYWHERE]
    if any_name:
        # Every name, and no address that is not listed.
        egress.append(f"!{_EVERYWHERE}:{_ALL_PORTS}")
    return {
        "name": "sandbox",
        "mode": "deny" if closed and not any_name else "allow",
        "first": "allow",
        "egress": egress,
    }


def _e2b_entries(host: str) -> list[str]:
    # An address comes with all its ports, a name with those of the web.
    address = host.partition("/")[0]
    if ":" in address:
        return [f"[{host}]:{_ALL_PORTS}"]
    if address.replace(".", "").isdigit():
        return [f"{host}:{_ALL_PORTS}"]
    return [f"{host}:{port}" for port in _WEB_PORTS]


def expanded(egress: Sequence[str]) -> list[str]:
    """Return entries with those of the bundles, as they are now, in the place of their names."""
    return _expand(egress, _bundles([{"egress": egress}]))


def _bundles(layers: Iterable[Mapping[str, Any]]) -> dict[str, Bundle]:
    names = {entry[1:] for layer in layers for entry in layer["egress"] if entry.startswith("@")}
    return Bundle.objects.in_bulk(names) if names else {}


def _expand(egress: Iterable[str], bundles: Mapping[str, Bundle]) -> list[str]:
    # An unknown bundle is nothing.
    kept: dict[str, None] = {}
    for entry in egress:
        bundle = bundles.get(entry[1:]) if entry.startswith("@") else None
        found = bundle.entries if bundle is not None else [] if entry.startswith("@") else [entry]
        kept.update(dict.fromkeys(found))
    return list(kept)


def _least(name: str, specs: Sequence[Mapping[str, Any]]) -> int | None:
    said = [limit for one in specs if (limit := one["limits"].get(name)) is not None]
    return min(said) if said else None


def _environment(spec: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("http_proxy", "https_proxy"):
        if spec[name]:
            found |= {name: spec[name], name.upper(): spec[name]}
    return found
