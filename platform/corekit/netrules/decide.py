"""What a policy says to a host, a name to resolve, and an address to connect to. Pure and quick: once per flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corekit.addresses import METADATA, METADATA_NAMES, is_never_reached, is_public, meant
from corekit.netrules.hosts import Name
from corekit.netrules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection

    from corekit.addresses import Address
    from corekit.netrules.entries import Entry
    from corekit.netrules.hosts import Host
    from corekit.netrules.policy import Layer, Policy

_ALL = frozenset({"tls", "http", "ws", "tcp"})
# What may be spoken where a protocol is allowed: `tcp` is anything, and a WebSocket begins as HTTP.
_SPOKEN = {"tls": frozenset({"tls"}), "http": frozenset({"http"}), "ws": frozenset({"http", "ws"}), "tcp": _ALL}
# A layer that allows everything asks of a name that what is said fits it, where that can be seen.
# A WebSocket below TLS is seen only where TLS is ended on the way.
_OPEN = {443: _SPOKEN["tls"] | {"ws"}, 80: _SPOKEN["ws"]}
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a flow may pass, and why not; which rule of which layer said so; and what it may speak.

    `protocols` has every protocol that may be spoken: "tcp" in it means anything.
    """

    allowed: bool
    reason: Reason | None = None
    rule: str | None = None
    layer: str | None = None
    protocols: frozenset[str] = _NONE


def judge(policy: Policy, host: Host, port: int) -> Verdict:
    """Judge a flow to a host. Its address is judged by `reachable` before it is connected to."""
    if _is_metadata(host):
        return Verdict(allowed=False, reason=Reason.METADATA)
    denied = _at(policy.denied.matching(host), port)
    if denied is not None:
        return Verdict(allowed=False, reason=Reason.OPERATOR_DENY, rule=denied.text)
    if not policy.layers:
        return Verdict(allowed=False, reason=_unlisted(host))
    protocols = _ALL
    told: tuple[str | None, str | None] = (None, None)
    for layer in policy.layers:
        reason, rule, spoken = _judge_layer(layer, host, port)
        protocols &= spoken
        if not protocols:
            return Verdict(allowed=False, reason=reason or Reason.NO_RULE, rule=rule, layer=layer.name)
        # The rule that is told is the first layer's: what its author wrote for this sandbox.
        if rule is not None and told == (None, None):
            told = rule, layer.name
    return Verdict(allowed=True, rule=told[0], layer=told[1], protocols=protocols)


def led_astray(policy: Policy, host: Host, port: int, address: Address) -> Verdict | None:
    """Return why an address that a judged host stands for may not be connected to; None when no rule says so.

    A rule that denies a network denies every name that leads into it. Only where what is allowed wins, a name that is
    allowed by a rule of its own may.
    """
    address = meant(address)
    denied = _at(policy.denied.matching(address), port)
    if denied is not None:
        return Verdict(allowed=False, reason=Reason.OPERATOR_DENY, rule=denied.text)
    for layer in policy.layers:
        if layer.first == "allow" and _at(layer.allowed.matching(host), port) is not None:
            continue
        denied = _at(layer.denied.matching(address), port)
        if denied is not None:
            return Verdict(allowed=False, reason=_unlisted(host), rule=denied.text, layer=layer.name)
    return None


def may_resolve(policy: Policy, name: Name) -> Verdict:
    """Judge whether a name is told an address: when a flow to it passes on at least one port."""
    if not policy.dns:
        return Verdict(allowed=False, reason=Reason.DNS_DENIED)
    refused = None
    for port in _worth_trying(policy, name):
        verdict = judge(policy, name, port)
        if verdict.allowed:
            return verdict
        refused = refused or verdict
    if refused is not None and refused.reason in (Reason.METADATA, Reason.OPERATOR_DENY):
        return refused
    return Verdict(allowed=False, reason=Reason.DNS_DENIED)


def reachable(policy: Policy, address: Address, own: Collection[Address]) -> Reason | None:
    """Return why an address may not be connected to, or None. `own` are the addresses of the host itself."""
    address = meant(address)
    if address in METADATA:
        return Reason.METADATA
    if address in own or is_never_reached(address):
        return Reason.RESOLVED_PRIVATE
    if is_public(address) or any(address in network for network in policy.private):
        return None
    return Reason.RESOLVED_PRIVATE


def _judge_layer(layer: Layer, host: Host, port: int) -> tuple[Reason | None, str | None, frozenset[str]]:
    """Return why not, the rule that says so, and what may be spoken: nothing, where there is a reason."""
    allowed = layer.allowed.matching(host)
    fitting = [entry for entry in allowed if entry.ports[0] <= port <= entry.ports[1]]
    if layer.first == "deny" or not fitting:
        denied = _at(layer.denied.matching(host), port)
        if denied is not None:
            return _unlisted(host), denied.text, _NONE
    if fitting:
        spoken = _NONE
        for entry in fitting:
            spoken |= _SPOKEN[entry.protocol_at(port)]
        return None, fitting[0].text, spoken
    if layer.mode == "allow":
        if isinstance(host, Name):
            return None, None, _OPEN.get(port, _ALL)
        if is_public(host):
            return None, None, _ALL
    return Reason.PORT if allowed else _unlisted(host), None, _NONE


def _worth_trying(policy: Policy, name: Name) -> list[int]:
    # Where a verdict can begin to be another one: at the first port of what allows, and behind what denies.
    ports = {1}
    tables = [policy.denied, *(table for layer in policy.layers for table in (layer.allowed, layer.denied))]
    for table in tables:
        for first, last in (entry.ports for entry in table.matching(name)):
            ports |= {first, last + 1}
    # The protocols of the web's ports differ from those of their neighbours.
    return sorted({*ports, 80, 443} - {65_536})


def _at(entries: Collection[Entry], port: int) -> Entry | None:
    for entry in entries:
        if entry.ports[0] <= port <= entry.ports[1]:
            return entry
    return None


def _unlisted(host: Host) -> Reason:
    return Reason.NO_RULE if isinstance(host, Name) else Reason.LITERAL_IP


def _is_metadata(host: Host) -> bool:
    return host.text in METADATA_NAMES if isinstance(host, Name) else meant(host) in METADATA
