"""Judge what a sandbox reached or tried to reach: single refusals by their reason, many of them by their number.

Rules of numbers speak once, at the flow with which the number is met; what a sandbox did before is given by the caller.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit.risk.findings import Finding
from audit.risk.scoring import RULES, combine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from audit.risk.findings import Assessment

DENIED, DNS_DENIED, CLOSED = "egress.denied", "egress.dns_denied", "egress.closed"
CODES = (DENIED, DNS_DENIED, CLOSED)
WRONG_S, NAMES_S, SENT_S = 600.0, 60.0, 3600.0
"""How long wrong hosts, names and bytes are counted."""
_WRONG = frozenset({"no_rule", "port", "literal_ip", "dns_denied"})
_LITTLE_BACK = 4
_MIB = 1024 * 1024
_RULES: list[dict[str, Any]] = json.loads((RULES / "flows.json").read_bytes())["rules"]


@dataclass(frozen=True, slots=True)
class Flow:
    """One event of the way out. Its time is in seconds; `host` is empty where `count` stands for many of them."""

    code: str
    at: float
    reason: str = ""
    host: str = ""
    count: int = 1
    bytes_in: int = 0
    bytes_out: int = 0


def assess_flow(flow: Flow, before: Sequence[Flow]) -> Assessment | None:
    """Return what a flow shows, given the same sandbox's flows before it; None when that is nothing."""
    findings = [
        found for rule in _RULES if (found := _by_reason(rule, flow) or _by_number(rule, flow, before)) is not None
    ]
    return combine("flow", findings) if findings else None


def _by_reason(rule: Mapping[str, Any], flow: Flow) -> Finding | None:
    if flow.code == CLOSED or flow.reason not in rule.get("reasons", ()):
        return None
    return _finding(rule, rule["message"])


def _by_number(rule: Mapping[str, Any], flow: Flow, before: Sequence[Flow]) -> Finding | None:
    measure = _MEASURES.get(rule.get("measure", ""))
    if measure is None:
        return None
    was, now = measure(flow, before), measure(flow, [*before, flow])
    if not was < rule["at"] <= now:
        return None
    return _finding(rule, rule["message"].format(amount=now))


def _finding(rule: Mapping[str, Any], message: str) -> Finding:
    return Finding(
        rule=rule["id"],
        title=rule["title"],
        kind=rule["kind"],
        weight=rule["weight"],
        tier=rule["tier"],
        message=message,
    )


def _wrong_hosts(flow: Flow, flows: Iterable[Flow]) -> int:
    """Return how many different hosts were asked for in vain."""
    if not _is_wrong(flow):
        return 0
    hosts: set[str] = set()
    nameless = 0
    for one in flows:
        if _is_wrong(one) and flow.at - one.at < WRONG_S:
            if one.host:
                hosts.add(one.host)
            else:
                nameless += one.count
    return len(hosts) + nameless


def _is_wrong(flow: Flow) -> bool:
    return flow.code in {DENIED, DNS_DENIED} and flow.reason in _WRONG


def _names(flow: Flow, flows: Iterable[Flow]) -> int:
    """Return how often names were asked for in vain."""
    if flow.code != DNS_DENIED:
        return 0
    return sum(one.count for one in flows if one.code == DNS_DENIED and flow.at - one.at < NAMES_S)


def _mib_out(flow: Flow, flows: Iterable[Flow]) -> int:
    """Return how many MiB went to the flow's host, 0 where enough came back for it to be a conversation."""
    if flow.code != CLOSED or not flow.host:
        return 0
    same = [one for one in flows if one.code == CLOSED and one.host == flow.host and flow.at - one.at < SENT_S]
    sent, got = sum(one.bytes_out for one in same), sum(one.bytes_in for one in same)
    return 0 if got * _LITTLE_BACK > sent else sent // _MIB


_MEASURES: Mapping[str, Callable[[Flow, Sequence[Flow]], int]] = {
    "wrong_hosts": _wrong_hosts,
    "names": _names,
    "mib_out": _mib_out,
}
