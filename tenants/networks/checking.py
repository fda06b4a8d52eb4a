"""Try a policy before it is used: what is wrong with it, what it leads to, and what it says about one host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corekit.netrules.decide import judge, reachable
from corekit.netrules.hosts import BadHost, Name, canonical_text
from corekit.netrules.policy import Policy
from corekit.netrules.reasons import Reason
from tenants.models import Bundle
from tenants.networks import bundles, covering, specs
from tenants.networks.compiling import compose, expanded, network_of, policy_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tenants.models import Tenant
    from tenants.networks.specs import Checked, Problem, Warned


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy says about one host and port: whether it may be reached, why, and which rule said so.

    `reason` is "" for what is allowed, and otherwise one of the codes that events have.
    """

    host: str
    port: int
    allowed: bool
    reason: str = ""
    sentence: str = ""
    rule: str = ""
    layer: str = ""
    protocols: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Tried:
    """A policy as it was typed: what is wrong with it, what it means, and what it says about a host."""

    valid: bool
    problems: Sequence[Problem]
    warnings: Sequence[Warned]
    spec: Mapping[str, Any]
    expanded: Sequence[str]
    answer: Answer | None


def check(
    tenant: Tenant | None, *, body: Mapping[str, Any], operator: bool, host: str | None = None, port: int = 443
) -> Tried:
    """Say everything about a policy that is not written yet. Nothing is kept."""
    checked = check_body(body, operator=operator)
    valid, answer = not checked.problems, None
    if valid:
        warn(checked, tenant)
        if host is not None:
            answer = try_host(document(tenant, checked.spec), host, port)
    return Tried(valid, checked.problems, checked.warnings, checked.spec, expanded(checked.spec["egress"]), answer)


def check_body(body: Mapping[str, Any], *, operator: bool) -> Checked:
    """Return a body as a spec, with everything that is wrong with it."""
    known = bundles.names()
    return specs.check_spec(body, bundles=known.all, filled=known.filled, operator=operator)


def document(tenant: Tenant | None, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a spec compiles to for a tenant; without one, under the ceiling that new tenants have."""
    layer = policy_layer(spec)
    return compose(network_of(tenant), spec=spec, layers=[layer] if layer is not None else [])


def warn(checked: Checked, tenant: Tenant | None) -> None:
    """Add what the layers above a policy stop. The platform's own policies are what those layers are made of."""
    if tenant is not None:
        named = Bundle.objects.filter(name__in=checked.bundles.values()).values_list("name", "entries")
        covering.warn_of_ceiling(checked, document(tenant, checked.spec), dict(named))


def try_host(compiled: Mapping[str, Any], host: str, port: int) -> Answer:
    """Judge one host as a sandbox's egress process would, short of resolving it."""
    policy = Policy.parse(compiled)
    try:
        target = canonical_text(host)
    except BadHost:
        return Answer(host, port, allowed=False, reason=Reason.BAD_HOST, sentence=Reason.BAD_HOST.sentence)
    verdict = judge(policy, target, port)
    reason = verdict.reason
    if reason is None and not isinstance(target, Name):
        reason = reachable(policy, target, ())
    return Answer(
        host=str(target),
        port=port,
        allowed=reason is None,
        reason=reason or "",
        sentence=reason.sentence if reason is not None else "",
        rule=verdict.rule or "",
        layer=verdict.layer or "",
        protocols=sorted(verdict.protocols) if reason is None else (),
    )
