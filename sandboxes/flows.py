"""What recorded traffic says about a policy that is not in force: what it would stop, and what it would open.

Only what was recorded counts: the flows that were let through, at their end, and what was refused. Reading is bounded,
newest first, and the answer says when there was more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from audit.actions import note_reading
from audit.models import EGRESS_CODES, Decision, Event
from corekit import clock
from corekit.addresses import is_public
from corekit.netrules.decide import Verdict, judge, may_resolve, reachable
from corekit.netrules.entries import RuleError, parse_entry
from corekit.netrules.hosts import BadHost, Name, canonical_text, written
from corekit.netrules.policy import Policy
from corekit.netrules.reasons import Reason
from sandboxes.catalog import sandbox_for
from tenants.networks import checking
from tenants.networks.compiling import policy_named
from tenants.networks.specs import MAX_ENTRIES
from tenants.policy import require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from django.db.models import QuerySet

    from corekit.actor import Actor
    from corekit.netrules.hosts import Host
    from tenants.models import Tenant

MAX_EVENTS = 20_000
MAX_ROWS = 500
MAX_HOURS = 7 * 24
CLOSED, DENIED, DNS_DENIED = EGRESS_CODES
RESERVED = frozenset({"proxy.internal", "broker.gatehouse.internal"})
# What a policy decides; for every other reason a flow is refused under any policy.
_BY_POLICY = frozenset(
    {Reason.NO_RULE, Reason.PORT, Reason.LITERAL_IP, Reason.DNS_DENIED, Reason.OPERATOR_DENY, Reason.POLICY_CLOSED}
)
# What a rule with a wider protocol lets through, and which one that is.
_BY_PROTOCOL: Mapping[str, str] = {Reason.NOT_TLS: "tcp", Reason.NOT_HTTP: "tcp", Reason.UPGRADE: "ws"}
_LATER = frozenset({Reason.RESOLVE_FAILED, Reason.CONNECT_FAILED, Reason.TLS_FAILED})
_USUAL = {443: "tls", 80: "http"}


class Seen(NamedTuple):
    """One kind of recorded traffic: where to, what was spoken, how it came, and whether it was let through."""

    host: str
    port: int | None
    allowed: bool
    reason: str
    protocol: str
    via: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A host and port, how often it was seen, and why a policy stops it. Without a port only its name was asked for."""

    host: str
    port: int | None
    count: int
    reason: str = ""
    rule: str = ""
    layer: str = ""


@dataclass(slots=True)
class Replay:
    """What a policy would have changed. `cut` says that there were more events or rows than are told of."""

    events: int
    cut: bool
    broken: list[Counted] = field(default_factory=list)
    opened: list[Counted] = field(default_factory=list)
    still_allowed: int = 0
    still_denied: int = 0


@dataclass(slots=True)
class Draft:
    """The least policy that lets through what a sandbox did, as the body of one, and what no policy should.

    `tried` are those of its entries for which nothing was let through so far.
    """

    body: dict[str, Any]
    events: int
    cut: bool
    tried: list[str]
    left_out: list[Counted]


def replay(
    actor: Actor,
    tenant: Tenant,
    *,
    window: timedelta,
    policy: str | None = None,
    body: Mapping[str, Any] | None = None,
) -> Replay:
    """Judge what a tenant's sandboxes did by a policy, or by the body of one, under the ceiling as it is now.

    Raises InvalidInput for a body that is no policy, or a policy that the tenant has not.
    """
    _require(actor, tenant)
    if policy is not None:
        spec: Mapping[str, Any] = policy_named(tenant, policy).spec
    else:
        spec = checking.check_body(body or {}, operator=actor.has("platform:write")).require().spec
    proposed = Policy.parse(checking.document(tenant, spec))
    rows = Event.objects.filter(tenant_id=tenant.pk)
    seen, events, cut = _recorded(rows, window)
    found = Replay(events, cut)
    broken: Counter[tuple[str, int | None, str, str, str]] = Counter()
    opened: Counter[tuple[str, int | None, str, str, str]] = Counter()
    for one, count in seen.items():
        verdict = _judged(proposed, one)
        told = (one.host, one.port, str(verdict.reason or ""), verdict.rule or "", verdict.layer or "")
        if one.allowed and verdict.allowed:
            found.still_allowed += count
        elif one.allowed:
            broken[told] += count
        elif verdict.allowed and _opens(one, verdict):
            opened[told] += count
        else:
            found.still_denied += count
    found.broken, more_broken = _rows(broken)
    found.opened, more_opened = _rows(opened)
    found.cut = cut or more_broken or more_opened
    return found


def learn(actor: Actor, sandbox_id: str, *, window: timedelta) -> Draft:
    """Draft the least policy that would have let through what a sandbox did and tried. Raises NotFound.

    What no policy should let through is left out, and said: private addresses, smuggling, hidden names.
    """
    sandbox = sandbox_for(actor, sandbox_id)
    _require(actor, sandbox.tenant)
    rows = Event.objects.filter(sandbox_id=sandbox.pk, tenant_id=sandbox.tenant_id).exclude(sandbox_id="")
    seen, events, cut = _recorded(rows, window)
    entries: Counter[str] = Counter()
    done: set[str] = set()
    left: Counter[tuple[str, int | None, str, str, str]] = Counter()
    for one, count in seen.items():
        entry = _entry(one)
        if entry is None:
            left[one.host, one.port, one.reason or Reason.RESOLVED_PRIVATE, "", ""] += count
        else:
            entries[entry] += count
            done |= {entry} if one.allowed else set()
    kept = [entry for entry, _ in _most(entries)[:MAX_ENTRIES]]
    # A name that was only asked for tells no port; what then came of it may be told by another event.
    told = {str(parse_entry(entry, any_port=True).host) for entry in kept}
    left_out, more = _rows(
        Counter({row: count for row, count in left.items() if row[1] is not None or row[0] not in told})
    )
    body = {"mode": "deny", "egress": sorted(kept), "ingress": [], "dns": any(one.via != "proxy" for one in seen)}
    return Draft(body, events, cut or more or len(entries) > len(kept), sorted(set(kept) - done), left_out)


def _require(actor: Actor, tenant: Tenant) -> None:
    """Demand what reading the audit and trying policies needs; that an operator read it is an event of the tenant."""
    require(actor, "networks:read")
    require(actor, "audit:read")
    if actor.tenant_id is None:
        note_reading(actor=actor, tenant_id=tenant.pk, filters=["code", "since"])


def _recorded(rows: QuerySet[Event], window: timedelta) -> tuple[Counter[Seen], int, bool]:
    """Return what was recorded in a window, counted, from how many events, and whether there were more."""
    recent = rows.filter(code__in=EGRESS_CODES, at__gte=clock.now() - window).order_by("-at", "-id")
    found = list(recent.values_list("code", "decision", "reason", "details")[: MAX_EVENTS + 1])
    seen: Counter[Seen] = Counter()
    for code, decision, reason, details in found[:MAX_EVENTS]:
        host = details.get("host")
        # Of a flood of hosts only the number is recorded.
        if isinstance(host, str) and host not in RESERVED:
            seen[_seen(code, decision, reason, details)] += _count(details)
    return seen, min(len(found), MAX_EVENTS), len(found) > MAX_EVENTS


def _seen(code: str, decision: str, reason: str, details: Mapping[str, Any]) -> Seen:
    port = details.get("port")
    allowed = code == CLOSED and decision != Decision.DENY
    return Seen(
        host=details["host"],
        port=port if isinstance(port, int) and code != DNS_DENIED else None,
        allowed=allowed,
        reason="" if allowed else reason,
        protocol=str(details.get("protocol") or ""),
        via=str(details.get("via") or ""),
    )


def _count(details: Mapping[str, Any]) -> int:
    count = details.get("count")
    return count if isinstance(count, int) and count > 0 else 1


def _judged(policy: Policy, one: Seen) -> Verdict:
    host = _host(one.host)
    if host is None:
        return _refused(Reason.BAD_HOST)
    if one.port is None:
        return may_resolve(policy, host) if isinstance(host, Name) else _refused(Reason.BAD_HOST)
    verdict = judge(policy, host, one.port)
    if not verdict.allowed:
        return verdict
    if isinstance(host, Name):
        if one.via == "transparent" and not policy.dns:
            return _refused(Reason.DNS_DENIED)
    elif (reason := reachable(policy, host, ())) is not None:
        return _refused(reason)
    if one.allowed and one.protocol and not {one.protocol, "tcp"} & verdict.protocols:
        return Verdict(
            allowed=False,
            reason=Reason.NOT_TLS if "tls" in verdict.protocols else Reason.NOT_HTTP,
            rule=verdict.rule,
            layer=verdict.layer,
        )
    return verdict


def _refused(reason: Reason) -> Verdict:
    return Verdict(allowed=False, reason=reason)


def _opens(one: Seen, verdict: Verdict) -> bool:
    """Say whether what was refused gets through where the host does."""
    if one.reason in _BY_PROTOCOL:
        return bool({_BY_PROTOCOL[one.reason], "tcp"} & verdict.protocols)
    return one.reason in _BY_POLICY


def _entry(one: Seen) -> str | None:
    """Return the rule that lets a flow through; None for what no rule should, or can."""
    host = _host(one.host)
    if host is None or one.port is None:
        return None
    if not isinstance(host, Name) and not is_public(host):
        return None
    if not (one.allowed or one.reason in _BY_POLICY or one.reason in _BY_PROTOCOL or one.reason in _LATER):
        return None
    protocol = one.protocol if one.allowed else _BY_PROTOCOL.get(one.reason, one.protocol)
    ending = f"/{protocol}" if protocol and protocol != _USUAL.get(one.port, "tcp") else ""
    try:
        return parse_entry(f"{written(host)}:{one.port}{ending}").text
    except RuleError:
        return None


def _host(text: str) -> Host | None:
    try:
        return canonical_text(text if ":" not in text or text.startswith("[") else f"[{text}]")
    except BadHost:
        return None


def _rows(counted: Counter[tuple[str, int | None, str, str, str]]) -> tuple[list[Counted], bool]:
    shown = [
        Counted(host, port, count, reason, rule, layer)
        for (host, port, reason, rule, layer), count in _most(counted)[:MAX_ROWS]
    ]
    return shown, len(counted) > len(shown)


def _most(counted: Counter[Any]) -> list[tuple[Any, int]]:
    # The same whatever order the database gave events of one moment in.
    return sorted(counted.items(), key=lambda one: (-one[1], str(one[0])))
