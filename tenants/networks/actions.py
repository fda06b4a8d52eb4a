"""Every change to what sandboxes may reach: one function each, with the actor by keyword and its audit row.

After the commit the upper layers hear of it (`hooks.on_network_changed`), so that what runs follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction

from audit.recording import record
from corekit import clock, ids
from corekit.addresses import is_never_reached
from corekit.errors import Conflict, InvalidInput, NotFound
from tenants.models import (
    SLUG_PATTERN,
    Bundle,
    NetworkPolicy,
    NetworkPolicyVersion,
    PlatformNetwork,
    Tenant,
    TenantNetwork,
)
from tenants.networks import bundles, checking, following, specs
from tenants.networks.compiling import network_of
from tenants.networks.presets import ISOLATED, PRESETS
from tenants.policy import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from corekit.actor import Actor
    from tenants.networks.specs import Checked, Warned

READ, WRITE, OPERATE = "networks:read", "networks:write", "platform:write"
MAX_POLICIES = 200
MAX_DENIED = 1000
MAX_RANGES = 64
_NAME = re.compile(SLUG_PATTERN)
_BUNDLE = re.compile(bundles.NAME)
# `check` is a path beside the policies.
_RESERVED = frozenset({"check"})


@dataclass(frozen=True, slots=True)
class Saved:
    """A policy as it is now, and what its author should know."""

    policy: NetworkPolicy
    warnings: Sequence[Warned]


def create_policy(*, actor: Actor, tenant: Tenant | None, name: str, body: Mapping[str, Any]) -> Saved:
    """Create a policy of a tenant, or with None of the platform.

    Raises InvalidInput naming the field, Conflict for a name that is taken by the tenant or the platform.
    """
    _require_for(actor, tenant)
    name = _checked_name(name)
    checked = _checked(actor, tenant, body)
    if NetworkPolicy.objects.filter(tenant=tenant, deleted_at=None).count() >= MAX_POLICIES:
        raise Conflict(f"There are {MAX_POLICIES} network policies already: delete one first.")
    # A tenant's policy of a platform's name would be mistaken for it.
    if tenant is not None and NetworkPolicy.objects.filter(tenant=None, name=name, deleted_at=None).exists():
        raise Conflict(f"{name} is the name of a policy of the platform.", field="name")
    policy = NetworkPolicy(tenant=tenant, name=name, spec=checked.spec, updated_by=actor.id[:64])
    try:
        with transaction.atomic():
            policy.save(force_insert=True)
            _keep_version(policy)
            spec = policy.spec
            _record(
                "network_policy.created",
                actor,
                policy,
                name=name,
                version=1,
                mode=spec["mode"],
                egress=spec["egress"],
            )
    except IntegrityError as error:
        raise Conflict(f"There is a network policy {name} already.", field="name") from error
    return Saved(policy, checked.warnings)


def replace_policy(*, actor: Actor, policy: NetworkPolicy, version: int, body: Mapping[str, Any]) -> Saved:
    """Make a policy what a body says, for running sandboxes too. What the body leaves out gets its default.

    Raises Conflict unless the policy still has the version that the caller has seen.
    """
    _require_for(actor, policy.tenant)
    if policy.tenant_id is None and policy.name == ISOLATED:
        raise Conflict("isolated is a promise for the life of a sandbox, and stays what it is: create another policy.")
    checked = _checked(actor, policy.tenant, body)
    now = clock.now()
    with transaction.atomic():
        current = NetworkPolicy.objects.select_for_update().filter(pk=policy.pk, deleted_at=None).first()
        if current is None:
            raise NotFound("There is no such network policy.")
        if current.version != version:
            raise Conflict(
                f"The policy has version {current.version} by now: read it again.",
                field="version",
                version=current.version,
            )
        before, after = current.spec, checked.spec
        current.version, current.spec = version + 1, after
        current.updated_at, current.updated_by = now, actor.id[:64]
        # SQLite has no row locks; of two that come at once, one finds the version gone.
        kept = NetworkPolicy.objects.filter(pk=policy.pk, version=version, deleted_at=None)
        if not kept.update(version=version + 1, spec=after, updated_at=now, updated_by=current.updated_by):
            raise Conflict("The policy changed meanwhile: read it again.", field="version")
        _keep_version(current)
        _record(
            "network_policy.replaced",
            actor,
            current,
            name=current.name,
            version=current.version,
            changed=sorted(name for name in after if after[name] != before.get(name) and name != "written"),
            **_difference(before["egress"], after["egress"]),
        )
        following.note(current.tenant_id, current.name)
    return Saved(current, checked.warnings)


def delete_policy(*, actor: Actor, policy: NetworkPolicy) -> None:
    """Delete a policy; sandboxes that run with it keep it. Raises Conflict while it is a default or a ceiling."""
    _require_for(actor, policy.tenant)
    if policy.tenant_id is None and policy.name in PRESETS:
        raise Conflict(f"{policy.name} is one of the platform's own policies, which stay.")
    with transaction.atomic():
        current = NetworkPolicy.objects.select_for_update().filter(pk=policy.pk, deleted_at=None).first()
        if current is None:
            raise NotFound("There is no such network policy.")
        in_use = TenantNetwork.everywhere()
        if in_use.filter(default=current).exists():
            raise Conflict("The policy is a tenant's default: choose another default first.")
        if in_use.filter(ceiling=current).exists():
            raise Conflict("The policy is a tenant's ceiling: set another ceiling first.")
        NetworkPolicy.objects.filter(pk=current.pk).update(deleted_at=clock.now(), updated_by=actor.id[:64])
        _record("network_policy.deleted", actor, current, name=current.name, version=current.version)


def set_network(*, actor: Actor, tenant: Tenant, wanted: Mapping[str, Any]) -> None:
    """Change some of `default`, `ceiling`, `public_internet` and `private_ranges` of a tenant: all of it or nothing."""
    _require_for(actor, tenant)
    with transaction.atomic():
        if "default" in wanted:
            set_default(actor=actor, tenant=tenant, policy=wanted["default"])
        if {"ceiling", "public_internet"} & set(wanted):
            now = network_of(tenant)
            ceiling = now.ceiling.name if now.ceiling is not None else None
            set_ceiling(
                actor=actor,
                tenant=tenant,
                policy=wanted.get("ceiling", ceiling),
                public_internet=wanted.get("public_internet", now.public_internet),
            )
        if "private_ranges" in wanted:
            set_private_ranges(actor=actor, tenant=tenant, ranges=wanted["private_ranges"])


def set_default(*, actor: Actor, tenant: Tenant, policy: str | None) -> TenantNetwork:
    """Choose the policy of sandboxes that name none: the tenant's own or the platform's; None is the ceiling."""
    _require_for(actor, tenant)
    with transaction.atomic():
        chosen = _policy_to_use(policy, tenant)
        network = _network_row(tenant)
        before, network.default = network.default, chosen
        network.save(update_fields=["default"])
        _record_network("network.default_set", actor, tenant, before=before.name if before else None, after=policy)
    return network


def set_ceiling(
    *, actor: Actor, tenant: Tenant, policy: str | None = None, public_internet: bool = False
) -> TenantNetwork:
    """Set what none of a tenant's sandboxes can go beyond: a policy of the platform; None is `restricted`.

    With `public_internet` it is every public host, but for what the policy denies. Running sandboxes follow.
    """
    require(actor, OPERATE)
    with transaction.atomic():
        chosen = _policy_to_use(policy, None)
        network = _network_row(tenant)
        before = _ceiling(network)
        network.ceiling, network.public_internet = chosen, public_internet
        network.save(update_fields=["ceiling", "public_internet"])
        _record_network("network.ceiling_set", actor, tenant, before=before, after=_ceiling(network))
        following.note(tenant.pk, None)
    return network


def set_private_ranges(*, actor: Actor, tenant: Tenant, ranges: Iterable[str]) -> TenantNetwork:
    """Let a tenant's sandboxes reach some addresses that are not public, where its policies and ceiling name them.

    Metadata services, loopback, link-local addresses and the host itself stay out of reach.
    """
    require(actor, OPERATE)
    wanted = _ranges(ranges, "private_ranges")
    with transaction.atomic():
        network = _network_row(tenant)
        before, network.private_ranges = network.private_ranges, wanted
        network.save(update_fields=["private_ranges"])
        _record_network("network.private_set", actor, tenant, **_difference(before, wanted))
        following.note(tenant.pk, None)
    return network


def set_platform_deny(*, actor: Actor, entries: Sequence[str]) -> PlatformNetwork:
    """Set what no sandbox of any tenant may reach, whatever a policy says. Running sandboxes follow."""
    require(actor, OPERATE)
    if len(entries) > MAX_DENIED:
        raise InvalidInput(f"deny: The list has {MAX_DENIED} entries at most.", field="deny")
    wanted = specs.parse_entries(entries, field="deny", deny=True)
    with transaction.atomic():
        row, _ = PlatformNetwork.objects.select_for_update().get_or_create(pk=1)
        before, row.deny, row.updated_at = row.deny, wanted, clock.now()
        row.save()
        record(
            "network.deny_set",
            actor=actor,
            object_type="platform",
            object_id="network",
            tenant_id=None,
            details=_difference(before, wanted),
        )
        following.note(None, None)
    return row


def set_bundle(
    *, actor: Actor, name: str, entries: Sequence[str], private: Iterable[str] = (), source: str = "an operator"
) -> Bundle:
    """Set what a bundle stands for, and the addresses that are not public and may be reached for it."""
    require(actor, OPERATE)
    if not isinstance(name, str) or not _BUNDLE.fullmatch(name):
        raise InvalidInput("A bundle's name has 1 to 32 characters of a-z, 0-9 and dashes inside.", field="name")
    if len(entries) > specs.MAX_ENTRIES:
        raise InvalidInput(f"entries: A bundle has {specs.MAX_ENTRIES} entries at most.", field="entries")
    wanted, granted = specs.parse_entries(entries, field="entries"), _ranges(private, "private")
    with transaction.atomic():
        row, _ = Bundle.objects.select_for_update().get_or_create(pk=name)
        difference = _difference(row.entries, wanted)
        row.entries, row.private, row.source = wanted, granted, source[:200]
        row.updated_at, row.updated_by = clock.now(), actor.id[:64]
        row.save()
        record(
            "network.bundle_set",
            actor=actor,
            object_type="network_bundle",
            object_id=name,
            object_name=f"@{name}",
            tenant_id=None,
            details={**difference, "private": granted, "source": row.source},
        )
        following.note(None, None)
    return row


def _checked(actor: Actor, tenant: Tenant | None, body: Mapping[str, Any]) -> Checked:
    checked = checking.check_body(body, operator=actor.has(OPERATE)).require()
    checking.warn(checked, tenant)
    return checked


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ids.is_event_id(name) or name in _RESERVED:
        raise InvalidInput("A policy's name has 1 to 63 characters of a-z, 0-9 and dashes inside.", field="name")
    return name


def _policy_to_use(name: str | None, tenant: Tenant | None) -> NetworkPolicy | None:
    """Return a tenant's policy of a name, else the platform's, locked against being deleted meanwhile."""
    if name is None:
        return None
    rows = NetworkPolicy.objects.select_for_update().filter(name=name, deleted_at=None)
    found = rows.filter(tenant=tenant).first() or rows.filter(tenant=None).first()
    if found is None:
        whose = "of the platform " if tenant is None else ""
        raise InvalidInput(f"There is no network policy {whose}with the name {str(name)[:63]!r}.", field="policy")
    return found


def _network_row(tenant: Tenant) -> TenantNetwork:
    TenantNetwork.everywhere().get_or_create(pk=tenant.pk)
    return (
        TenantNetwork.everywhere()
        .select_for_update(of=("self",))
        .select_related("default", "ceiling")
        .get(pk=tenant.pk)
    )


def _ceiling(network: TenantNetwork) -> dict[str, object]:
    return {"policy": network.ceiling.name if network.ceiling else None, "public_internet": network.public_internet}


def _ranges(ranges: Iterable[str], field: str) -> list[str]:
    found: dict[IPv4Network | IPv6Network, None] = {}
    for place, text in enumerate(ranges):
        where = f"{field}[{place}]"
        if place >= MAX_RANGES:
            raise InvalidInput(f"{field}: There are {MAX_RANGES} ranges at most.", field=field)
        try:
            network = ip_network(text if isinstance(text, str) else "")
        except ValueError as error:
            message = f"{where}: A range is an address or a network like 10.20.0.0/16, without bits behind its length."
            raise InvalidInput(message, field=where) from error
        if is_never_reached(network.network_address) or is_never_reached(network.broadcast_address):
            message = f"{where}: {network} leads to the host itself or its cloud provider: nobody can be let in."
            raise InvalidInput(message, field=where)
        found[network] = None
    return [str(one) for one in found]


def _difference(before: Sequence[str], after: Sequence[str]) -> dict[str, list[str]]:
    return {
        "added": [entry for entry in after if entry not in before],
        "removed": [entry for entry in before if entry not in after],
    }


def _keep_version(policy: NetworkPolicy) -> None:
    NetworkPolicyVersion.objects.create(
        policy=policy, version=policy.version, spec=policy.spec, created_by=policy.updated_by
    )


def _require_for(actor: Actor, tenant: Tenant | None) -> None:
    """Demand the right to change a tenant's policies; the platform's own are for operators."""
    if tenant is None:
        require(actor, OPERATE)
        return
    if actor.tenant_id is not None and actor.tenant_id != tenant.id.hex:
        raise NotFound("There is no such tenant.")
    require(actor, WRITE)


def _record(code: str, actor: Actor, policy: NetworkPolicy, **details: object) -> None:
    record(
        code,
        actor=actor,
        object_type="network_policy",
        object_id=policy.pk,
        object_name=policy.name,
        tenant_id=policy.tenant_id,
        details=details,
    )


def _record_network(code: str, actor: Actor, tenant: Tenant, **details: object) -> None:
    record(code, actor=actor, object_type="tenant", object_id=tenant.id.hex, tenant_id=tenant.id, details=details)
