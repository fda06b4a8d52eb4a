"""Judge what a sandbox reached or tried to reach: single refusals by their reason, many of them by their number.

Rules of numbers speak once, at the flow with which the number is met; what a sandbox did before is given by the caller.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit.risk.findings import Finding
from audit.risk.scoring import RULES, combine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from audit.risk.findings import Assessment

DENIED, DNS_DENIED, CLOSED = "egress.denied", "egress.dns_denied", "egress.closed"
EXFIL_ATTEMPT = "secret.exfil_attempt"
CODES = (DENIED, DNS_DENIED, CLOSED, EXFIL_ATTEMPT)
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


class Recent:
    """What one sandbox reached and tried to reach lately, counted as it comes, in the order of its time."""

    def __init__(self, before: Iterable[Flow] = ()) -> None:
        self._wrong = _Window(WRONG_S)
        self._names = _Window(NAMES_S)
        self._out, self._in = _Window(SENT_S), _Window(SENT_S)
        for flow in before:
            self._add(flow)

    def assess(self, flow: Flow) -> Assessment | None:
        """Return what one more flow shows; None when that is nothing."""
        was = self._numbers(flow)
        self._add(flow)
        now = self._numbers(flow)
        findings = [_finding(rule, now) for rule in _RULES if _has_reason(rule, flow) or _is_met(rule, was, now)]
        return combine("flow", findings) if findings else None

    def _add(self, flow: Flow) -> None:
        if flow.code == CLOSED:
            self._out.add(flow.at, flow.host, flow.bytes_out)
            self._in.add(flow.at, flow.host, flow.bytes_in)
            return
        if flow.code == DNS_DENIED:
            self._names.add(flow.at, "", flow.count)
        if flow.reason in _WRONG:
            self._wrong.add(flow.at, flow.host, flow.count)

    def _numbers(self, flow: Flow) -> dict[str | None, int]:
        """Return what the measures are at the time of a flow, and for its host."""
        for window in (self._wrong, self._names, self._out, self._in):
            window.forget(flow.at)
        sent, got = self._out.of(flow.host), self._in.of(flow.host)
        # Where enough comes back it is a conversation.
        told = 0 if not flow.host or got * _LITTLE_BACK > sent else sent // _MIB
        # Without a name an event stands for as many hosts as it counts.
        hosts = self._wrong.keys("") + self._wrong.of("")
        return {"wrong_hosts": hosts, "names": self._names.of(""), "mib_out": told}


class _Window:
    """Amounts by a key, of a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: deque[tuple[float, str, int]] = deque()
        self._amounts: Counter[str] = Counter()
        self._times: Counter[str] = Counter()

    def add(self, at: float, key: str, amount: int) -> None:
        self._entries.append((at, key, amount))
        self._amounts[key] += amount
        self._times[key] += 1

    def forget(self, now: float) -> None:
        while self._entries and now - self._entries[0][0] >= self._seconds:
            _, key, amount = self._entries.popleft()
            self._amounts[key] -= amount
            self._times[key] -= 1
            if not self._times[key]:
                del self._times[key], self._amounts[key]

    def of(self, key: str) -> int:
        return self._amounts[key]

    def keys(self, without: str) -> int:
        return len(self._times) - (without in self._times)


def _has_reason(rule: Mapping[str, Any], flow: Flow) -> bool:
    if "code" in rule:
        return bool(flow.code == rule["code"])
    return flow.code != CLOSED and flow.reason in rule.get("reasons", ())


def _is_met(rule: Mapping[str, Any], was: Mapping[str | None, int], now: Mapping[str | None, int]) -> bool:
    measure = rule.get("measure")
    return measure is not None and was[measure] < rule["at"] <= now[measure]


def _finding(rule: Mapping[str, Any], numbers: Mapping[str | None, int]) -> Finding:
    return Finding(
        rule=rule["id"],
        title=rule["title"],
        kind=rule["kind"],
        weight=rule["weight"],
        tier=rule["tier"],
        message=rule["message"].format(amount=numbers.get(rule.get("measure"), 0)),
    )
