"""What a sandbox may reach: wished for, written down as its row's next version, and told to its node.

The row says what should be, and compiling it says it in the node's words, with the policies and the tenant's ceiling as
they are at that moment. So whoever changes one of those only counts the versions up. `network_acked` is the one that
the node took: what it has still to be told is found by any look at the rows, whoever died in between.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog
from django.conf import settings
from django.db.models import F

from audit import recording
from corekit import atrest
from corekit.errors import Conflict, GatehouseError
from corekit.netrules.policy import NOTHING
from sandboxes import selectors, turns
from sandboxes.errors import EgressUnavailable, NetworkFixed, NodeUnavailable
from sandboxes.models import Sandbox
from sandboxes.states import NetworkMode, SandboxState
from tenants import injection
from tenants.broker.hosts import hosts_of, is_first
from tenants.injection import Asked
from tenants.models import Tenant
from tenants.networks import E2BNetwork, compile_network
from tenants.states import TenantState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from django.db.models import QuerySet

    from corekit.actor import Actor
    from sandboxes.node_client import Json, NodeClient
    from tenants.models import TenantNetwork
    from tenants.networks import Compiled
    from tenants.tokenmodels import ScopedToken

logger = structlog.get_logger("sandboxes.networks")

TOLD_AT_ONCE = 200
"""How many sandboxes one run tells their node about; the next run goes on."""
_BUDGET_S = 2.0
_PURPOSE = "gatehouse upstream proxies v1"
_AT_NODE = (SandboxState.RUNNING, SandboxState.PAUSING, SandboxState.PAUSED, SandboxState.RESUMING)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for: a policy by its name, or E2B's words for what may be reached. Neither is the default.

    `words` may be shown again; `secrets` are the parts of an upstream proxy that nobody is shown.
    """

    policy: str | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_internet_access: bool | None = None
    injected: Asked = field(default_factory=Asked)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of what may be reached: what is put into requests opens nothing."""
        return self.policy is None and not self.words and self.allow_internet_access is None

    def compiled(self, tenant: Tenant, *, version: int = 1, running: bool = False) -> Compiled:
        """Return what it comes to under the tenant's ceiling. Raises InvalidInput for an unknown policy."""
        if self.policy is not None:
            return compile_network(tenant, policy=self.policy, version=version, running=running)
        compiled = compile_network(tenant, e2b=self._in_words(), version=version, running=running)
        if self.words.get("dnsServers") == []:
            compiled.document["dns"] = False
        return compiled

    def _in_words(self) -> E2BNetwork:
        return E2BNetwork(
            allow_internet_access=self.allow_internet_access,
            allow_out=self.words.get("allowOut", ()),
            deny_out=self.words.get("denyOut", ()),
            egress_proxy=self._proxy(),
        )

    def _proxy(self) -> Json | None:
        shown = self.words.get("egressProxy")
        if not shown:
            return None
        proxy: Json = dict(shown)
        if "password" in self.secrets:
            proxy["password"] = self.secrets["password"]
        if "caCert" in self.secrets:
            proxy["tls"] = {**proxy.get("tls", {}), "caCert": self.secrets["caCert"]}
        return proxy

    def columns(self) -> dict[str, Any]:
        """Return it as a row has it."""
        return {
            "network_policy": self.policy or "",
            "network": dict(self.words),
            "network_secrets": _encrypted(self.secrets),
            "allow_internet_access": self.allow_internet_access,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new sandbox gets, as far as it is for its whole life; its document is compiled when it starts."""

    tenant: Tenant
    wish: Wish = field(default_factory=Wish)
    mode: str = NetworkMode.OPEN
    ingress_ports: Sequence[int] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    placeholders: Sequence[Mapping[str, Any]] = ()

    def columns(self) -> dict[str, Any]:
        """Return it as a new row has it."""
        asked = self.wish.injected
        injected = {"rules": asked.rules, "identities": asked.identities, "placeholders": self.placeholders}
        return {**self.wish.columns(), "injected": {name: value for name, value in injected.items() if value}}


def plan(tenant_id: UUID | str, wish: Wish) -> Plan:
    """Return what a sandbox of a tenant is to get. Who asks for nothing gets the default that was set, or the ceiling.

    Raises InvalidInput for an unknown policy, or for a rule that names an identity which the sandbox won't have.
    """
    injection.require_identities(wish.injected.rules, wish.injected.identities)
    tenant = Tenant.objects.select_related("network__default").get(pk=tenant_id)
    network: TenantNetwork | None = getattr(tenant, "network", None)
    if wish.is_empty and network is not None and network.default is not None:
        wish = replace(wish, policy=network.default.name)
    placeholders = injection.make_placeholders(wish.injected.bindings or {})
    if wish.policy is None:
        return Plan(tenant, wish, placeholders=placeholders)
    compiled = wish.compiled(tenant)
    return Plan(tenant, wish, compiled.mode, compiled.ingress_ports, compiled.environment, placeholders)


def in_spec(sandbox: Sandbox) -> Json | None:
    """Return what the node is told when a sandbox starts, as its row, its policies and its ceiling are now.

    To be called once the row is committed: a change that comes later than this then finds it.
    """
    if sandbox.network_mode == NetworkMode.NONE:
        return None
    return {"mode": str(NetworkMode.OPEN), "document": _compiled(sandbox)[0]}


def _compiled(sandbox: Sandbox) -> tuple[Json, Sequence[int] | None]:
    """Return the document of a row and the ports that may be reached from outside."""
    if sandbox.network_cut or sandbox.tenant.state != TenantState.ACTIVE:
        return _nothing(sandbox.network_version), sandbox.ingress_ports
    compiled = _wish_of(sandbox).compiled(sandbox.tenant, version=sandbox.network_version, running=True)
    # In E2B's words nothing is said of ports after the start.
    ports = compiled.ingress_ports if sandbox.network_policy else sandbox.ingress_ports
    document = compiled.document | injection.document_fields(sandbox.header_rules, sandbox.placeholders)
    _close_past_broker(sandbox, document)
    return document, ports


def _close_past_broker(sandbox: Sandbox, document: Json) -> None:
    """Let no connection pass unseen to a host whose secret a scoped token is for: what the token allows would be void.

    Where its requests are changed on their way, they are seen.
    """
    # Its first token counts the version up.
    hosts = hosts_of(sandbox.tenant_id, sandbox.pk, sandbox.generation) if sandbox.network_version > 1 else []
    closed = [f"!{host}:1-65535" for host in hosts if not injection.binds(document, host)]
    # In the ceiling's layer, where no other entry of a sandbox's own wins over it.
    document["layers"][-1]["egress"] += closed


def follow_token(token: ScopedToken) -> bool:
    """Count up what a token changes, in the transaction in which it was issued; False when that is nothing."""
    if not is_first(token):
        return False
    rows = Sandbox.everywhere().filter(pk=token.sandbox_id, network_mode=NetworkMode.OPEN)
    return bool(rows.update(network_version=F("network_version") + 1))


def _nothing(version: int) -> Json:
    return {**NOTHING.dump(), "version": version}


def _wish_of(sandbox: Sandbox) -> Wish:
    return Wish(
        policy=sandbox.network_policy or None,
        words=sandbox.network,
        secrets=_decrypted(sandbox.network_secrets),
        allow_internet_access=sandbox.allow_internet_access,
    )


def _encrypted(secrets: Mapping[str, str]) -> str:
    # The worker tells nodes too, so it is a key that it may read.
    return atrest.encrypt(settings.SECRET_KEY, _PURPOSE, json.dumps(dict(secrets))) if secrets else ""


def _decrypted(stored: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(atrest.decrypt(settings.SECRET_KEY, _PURPOSE, stored)) if stored else {}
    return found


# --- changes


def change(actor: Actor, sandbox: Sandbox, wish: Wish) -> None:
    """Write down what a running sandbox may reach from now on.

    Raises NetworkFixed for one without a network, Conflict while it does not run or its network is cut, and
    InvalidInput for an unknown policy, identity or variable.
    """
    wish = replace(wish, injected=replace(wish.injected, identities=sandbox.identities))
    planned = plan(sandbox.tenant_id, wish)
    with turns.write():
        row = Sandbox.everywhere().select_for_update().filter(pk=sandbox.pk, generation=sandbox.generation).first()
        if row is None:
            raise selectors.no_sandbox()
        if row.network_mode == NetworkMode.NONE:
            raise NetworkFixed
        if row.state != SandboxState.RUNNING:
            raise Conflict(f"The sandbox is {row.state}.", state=str(row.state))
        if row.network_cut:
            raise Conflict("The network of the sandbox was cut for its risk.", state=str(row.state))
        changes: dict[str, Any] = planned.wish.columns()
        placeholders = injection.rebind(row.placeholders, wish.injected.bindings)
        changes["injected"] = row.injected | {"rules": wish.injected.rules, "placeholders": placeholders}
        if planned.wish.policy is not None:
            changes["ingress_ports"] = planned.ingress_ports
        _count_up(row, **changes)
        asked = {"policy": row.network_policy, "network": row.network, "rules": row.header_rules}
        record_change(actor, row, "requested", arguments=asked)


def cut(sandbox: Sandbox) -> bool:
    """Write down that nothing of a sandbox is let out any more, in the caller's transaction; False when it was."""
    return _set_cut(sandbox, now=True)


def lift(sandbox: Sandbox) -> bool:
    """Write down that a sandbox whose network was cut has it again, in the caller's transaction."""
    return _set_cut(sandbox, now=False)


def _set_cut(sandbox: Sandbox, *, now: bool) -> bool:
    rows = _same(sandbox).filter(network_cut=not now, ended_at=None)
    return bool(rows.update(network_cut=now, network_version=F("network_version") + 1))


def record_change(actor: Actor, sandbox: Sandbox, reason: str, *, arguments: Json | None = None) -> None:
    """Write the event of a change, in its transaction. Only web can hash arguments."""
    recording.record(
        "sandbox.network_changed",
        actor=actor,
        object_type="sandbox",
        object_id=sandbox.pk,
        tenant_id=sandbox.tenant_id,
        generation=sandbox.generation,
        policy_version=str(sandbox.network_version),
        arguments=arguments,
        details={
            "policy": sandbox.network_policy,
            "version": sandbox.network_version,
            "reason": reason,
            **injects(sandbox),
        },
    )


def injects(sandbox: Sandbox) -> dict[str, Any]:
    """Return, for the details of an event, which secrets are put into a sandbox's requests."""
    names = injection.secret_names(sandbox.header_rules, sandbox.placeholders)
    return {"injects": names} if names else {}


def _count_up(row: Sandbox, **changes: object) -> None:
    row.network_version += 1
    for name, value in changes.items():
        setattr(row, name, value)
    row.save(update_fields=["network_version", *changes])


def follow_policies(tenant_id: str | None, policy: str | None) -> None:
    """Count up what a change of policies is about: its document is another one now.

    Without a policy it is about all sandboxes of the tenant. What is the platform's may be the ceiling of any tenant.
    """
    rows = Sandbox.everywhere().filter(ended_at=None, network_mode=NetworkMode.OPEN)
    if tenant_id is not None:
        rows = rows.filter(tenant_id=tenant_id)
        if policy is not None:
            rows = rows.filter(network_policy=policy)
    with turns.write():
        rows.update(network_version=F("network_version") + 1)


def follow_tenant(tenant_id: str) -> None:
    """Let out nothing of a tenant that is suspended, and what its policies say once it is active again."""
    follow_policies(tenant_id, None)


# --- telling the node


def tell(client: NodeClient, sandbox: Sandbox) -> None:
    """Tell the node what a sandbox may reach; returns once its egress obeys.

    Raises UnknownAtNode, and NodeUnavailable or EgressUnavailable: then whoever looks next tells it.
    """
    row = Sandbox.everywhere().select_related("tenant").get(pk=sandbox.pk)
    document, ports = _compiled(row)
    client.set_network(row.pk, row.generation, document, ports)
    taken: dict[str, Any] = {"network_acked": row.network_version}
    if ports != row.ingress_ports:
        taken["ingress_ports"] = ports
    with turns.write():
        _same(row).filter(network_acked__lt=row.network_version).update(**taken)


def tell_all(client: NodeClient) -> int:
    """Tell the node what it does not know yet of any sandbox; returns how many it took. What fails waits on."""
    told, until = 0, time.monotonic() + _BUDGET_S
    for row in _untold()[:TOLD_AT_ONCE]:
        if time.monotonic() > until:
            break
        try:
            tell(client, row)
        except (NodeUnavailable, EgressUnavailable) as error:
            # It is the same for all the others.
            logger.warning("network_waits", sandbox_id=row.pk, error=error.code)
            break
        except GatehouseError as error:
            logger.warning("network_not_taken", sandbox_id=row.pk, error=error.code)
        else:
            told += 1
    return told


def _untold() -> QuerySet[Sandbox]:
    """Return what the node has still to be told, the longest overdue first."""
    rows = Sandbox.everywhere().filter(ended_at=None, network_acked__lt=F("network_version"), state__in=_AT_NODE)
    return rows.order_by("network_acked", "pk")


def _same(sandbox: Sandbox) -> QuerySet[Sandbox]:
    return Sandbox.everywhere().filter(pk=sandbox.pk, generation=sandbox.generation)
