"""What egress is told for one request of a sandbox: the headers that it gets and the secrets behind its placeholders.

Where the request goes is egress's to say, and no more. What is put in, the sandbox's own row says; every secret that
leaves here is an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit import recording
from audit.models import Outcome
from corekit import clock
from corekit.errors import Forbidden, GatehouseError
from corekit.netrules.headerrules import narrowest
from corekit.netrules.hosts import BadHost, Name, canonical_text
from sandboxes import selectors, turns
from sandboxes.launch import OBJECT
from sandboxes.states import NetworkMode, SandboxState
from tenants import injection, policy
from tenants.broker import rendering
from tenants.broker.flooding import Refusals
from tenants.identity import Workload, mint
from tenants.states import TenantState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corekit.actor import Actor
    from corekit.netrules.headerrules import HeaderRule, Placeholder
    from sandboxes.models import Sandbox
    from tenants.broker.rendering import Rendered
    from tenants.identity import Minted

LONGEST_PATH = 512
"""So much of a path is recorded."""
# At the node it may run before its row says so, and for a moment after the row says that it is to be paused.
_RUNS = frozenset({SandboxState.STARTING, SandboxState.RUNNING, SandboxState.PAUSING, SandboxState.RESUMING})

_refusals = Refusals()


@dataclass(frozen=True, slots=True)
class Request:
    """Where a request goes. `rule_host` is the host of the rule that egress found for it."""

    host: str
    method: str
    path: str
    rule_host: str | None


def credentials(*, actor: Actor, sandbox_id: str, generation: int, request: Request) -> dict[str, object]:
    """Return what a request of a running sandbox gets: `set`, `swap` and `needles`.

    Raises NotFound unless it runs with a network, Forbidden for what no rule of it is for, CannotInject for a secret
    that is not there, and what a vault raises that is away.
    """
    policy.require(actor, "platform:write")
    sandbox = _running(sandbox_id, generation)
    rule, placeholders = _rule(sandbox, request), _placeholders(sandbox, request)
    names = rendering.names_of(rule, placeholders)
    told = {
        "host": request.host,
        "method": request.method,
        # What follows the question mark may hold what nobody is to read.
        "path": request.path.partition("?")[0][:LONGEST_PATH],
        "rule": request.rule_host or "",
        "names": list(names),
    }
    try:
        if rule is None and (request.rule_host is not None or not placeholders):
            raise Forbidden("The sandbox has no rule for this request.")
        rendered = rendering.render(
            sandbox.tenant_id.hex, rule, placeholders, lambda name: mint(_workload(sandbox), _audience(sandbox, name))
        )
    except GatehouseError as error:
        unwritten = _refusals.one_more(sandbox.pk)
        if unwritten is not None:
            shown = told | ({"unwritten": unwritten} if unwritten else {})
            with turns.write():
                _record(actor, sandbox, "secret.inject_refused", shown, outcome=Outcome.REFUSED, reason=error.code)
        raise
    with turns.write():
        if names:
            _record(actor, sandbox, "secret.injected", told)
        for name, minted in rendered.identities:
            _record(actor, sandbox, "identity.minted", _described(name, minted, request))
    return _answer(rendered)


def _running(sandbox_id: str, generation: int) -> Sandbox:
    sandbox = selectors.sandbox_at_node(sandbox_id, generation)
    lets_out = sandbox.network_mode == NetworkMode.OPEN and not sandbox.network_cut
    if sandbox.state not in _RUNS or not lets_out or sandbox.tenant.state != TenantState.ACTIVE:
        raise selectors.no_sandbox()
    return sandbox


def _rule(sandbox: Sandbox, request: Request) -> HeaderRule | None:
    """Return the rule for a request, if it is the one that egress found."""
    rule = _nearest(sandbox, request)
    return rule if rule is not None and str(rule.host) == request.rule_host and _fits(rule, request) else None


def _placeholders(sandbox: Sandbox, request: Request) -> tuple[Placeholder, ...]:
    rule, host = _nearest(sandbox, request), _name(request.host)
    if rule is not None and not _fits(rule, request):
        return ()
    return tuple(one for one in injection.parsed_placeholders(sandbox.placeholders) if one.is_for(host))


def _nearest(sandbox: Sandbox, request: Request) -> HeaderRule | None:
    return narrowest(injection.parsed_rules(sandbox.header_rules), _name(request.host))


def _fits(rule: HeaderRule, request: Request) -> bool:
    return rule.fits(request.method, request.path.encode())


def _name(host: str) -> Name:
    try:
        found = canonical_text(host)
    except BadHost as error:
        raise Forbidden("That is no host name.") from error
    if not isinstance(found, Name):
        raise Forbidden("Secrets go to names, and to no address.")
    return found


def _workload(sandbox: Sandbox) -> Workload:
    return Workload(sandbox.tenant_id.hex, sandbox.template_id or "", sandbox.pk)


def _audience(sandbox: Sandbox, name: str) -> str:
    identity = sandbox.identities.get(name)
    if identity is None:
        raise Forbidden("The sandbox has no such identity.")
    return identity["audience"]


def _described(name: str, minted: Minted, request: Request) -> dict[str, object]:
    return {
        "host": request.host,
        "name": name,
        "audience": minted.audience,
        "jti": minted.id,
        "kid": minted.key_id,
        "expires_at": clock.to_rfc3339(minted.expires_at),
    }


def _record(
    actor: Actor,
    sandbox: Sandbox,
    code: str,
    details: Mapping[str, object],
    *,
    outcome: str = Outcome.OK,
    reason: str = "",
) -> None:
    recording.record(
        code,
        actor=actor,
        object_type=OBJECT,
        object_id=sandbox.pk,
        tenant_id=sandbox.tenant_id,
        sandbox_id=sandbox.pk,
        generation=sandbox.generation,
        tier=sandbox.tier,
        policy_version=str(sandbox.network_version),
        host=str(details["host"]),
        outcome=outcome,
        reason=reason,
        details=details,
    )


def _answer(rendered: Rendered) -> dict[str, object]:
    return {
        "set": [list(one) for one in rendered.headers],
        "swap": [list(one) for one in rendered.swaps],
        "needles": list(rendered.needles),
    }
