"""The document that says what a sandbox may reach. The control plane writes it, nodes keep it, egress obeys it.

A flow passes when nothing of `deny` matches and every layer allows it: a layer can only narrow the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from corekit.netrules.entries import Entry, RuleError, parse_entry
from corekit.netrules.headerrules import (
    MAX_PLACEHOLDERS,
    MAX_RULES,
    HeaderRule,
    Placeholder,
    narrowest,
    parse_placeholder,
    parse_rule,
    require_one_each,
)
from corekit.netrules.hosts import BadHost, Host, canonical_authority, written
from corekit.netrules.lookup import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corekit.addresses import Network

MAX_ENTRIES = 4096
"""Of one list: policies are smaller, but bundles expand."""
_MODES = ("deny", "allow")


@dataclass(frozen=True, slots=True)
class Layer:
    """Rules of one origin. `first` is which of them win: those that deny, or, as E2B has it, those that allow."""

    name: str
    mode: str
    first: str
    egress: tuple[Entry, ...]
    allowed: Table = field(repr=False, compare=False)
    denied: Table = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a sandbox may use; None is no limit."""

    flows: int | None = None
    new_per_s: int | None = None
    bytes_out: int | None = None
    idle_s: int | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """What is asked of TLS greetings."""

    sni: str = "require"
    ech: str = "deny"


@dataclass(frozen=True, slots=True)
class SocksProxy:
    """A SOCKS5 proxy of the user's, which gets what was allowed."""

    host: Host
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    server_name: str | None = None
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a sandbox may reach."""

    version: int
    layers: tuple[Layer, ...]
    deny: tuple[Entry, ...]
    private: tuple[Network, ...]
    dns: bool
    via: tuple[Host, int] | None
    egress_proxy: SocksProxy | None
    limits: Limits
    tls: Tls
    denied: Table = field(repr=False, compare=False)
    rules: tuple[HeaderRule, ...] = ()
    placeholders: tuple[Placeholder, ...] = ()

    @classmethod
    def parse(cls, document: object) -> Policy:
        """Return the policy of a document. Raises RuleError with the field at fault; nothing is filled in."""
        said = _object(document, "", _FIELDS)
        deny = _entries(said["deny"], "deny")
        rules, placeholders = _rules(said["rules"]), _placeholders(said["placeholders"])
        require_one_each(rules, placeholders)
        return cls(
            version=_whole(said["version"], "version"),
            layers=tuple(_layer(one, f"layers[{n}]") for n, one in enumerate(_list(said["layers"], "layers"))),
            deny=deny,
            private=tuple(_private(one, f"private[{n}]") for n, one in enumerate(_list(said["private"], "private"))),
            dns=_flag(said["dns"], "dns"),
            via=None if said["via"] is None else _authority(said["via"], "via"),
            egress_proxy=None if said["egress_proxy"] is None else _socks(said["egress_proxy"]),
            limits=_limits(said["limits"]),
            tls=_tls(said["tls"]),
            denied=Table(deny),
            rules=rules,
            placeholders=placeholders,
        )

    def dump(self) -> dict[str, Any]:
        """Return the document; `parse` makes the same policy of it."""
        return {
            "version": self.version,
            "layers": [
                {"name": one.name, "mode": one.mode, "first": one.first, "egress": [e.text for e in one.egress]}
                for one in self.layers
            ],
            "deny": [entry.text for entry in self.deny],
            "private": [str(network) for network in self.private],
            "dns": self.dns,
            "via": None if self.via is None else _joined(*self.via),
            "egress_proxy": None if self.egress_proxy is None else _dump_socks(self.egress_proxy),
            "limits": {name: getattr(self.limits, name) for name in _LIMITS},
            "tls": {"sni": self.tls.sni, "ech": self.tls.ech},
            "rules": [rule.dump() for rule in self.rules],
            "placeholders": [one.dump() for one in self.placeholders],
        }

    def rule_for(self, host: Host) -> HeaderRule | None:
        """Return the header rule of a host: that of its name, else the narrowest one above it."""
        return narrowest(self.rules, host) if self.rules else None

    def placeholders_for(self, host: Host) -> tuple[Placeholder, ...]:
        """Return the placeholders that are swapped on the way to a host."""
        return tuple(one for one in self.placeholders if one.is_for(host))

    def binds(self, host: Host) -> bool:
        """Tell whether requests to a host are changed, so that its TLS must be ended on the way."""
        rule = self.rule_for(host)
        return (rule is not None and bool(rule.headers)) or any(one.is_for(host) for one in self.placeholders)

    @property
    def bound(self) -> tuple[str, ...]:
        """Return the names, and `*.` names, of all hosts that it may bind: sorted, each once."""
        found = {str(rule.host) for rule in self.rules if rule.headers}
        return tuple(sorted(found.union(str(host) for one in self.placeholders for host in one.hosts)))


_FIELDS = (
    *("version", "layers", "deny", "private", "dns", "via", "egress_proxy", "limits", "tls", "rules", "placeholders"),
)
_RULE = ("host", "set", "methods", "paths")
_PLACEHOLDER = ("secret", "value", "hosts", "slots")
_LIMITS = ("flows", "new_per_s", "bytes_out", "idle_s")
_TLS = {"sni": ("require", "log"), "ech": ("deny", "allow")}
_SOCKS = ("address", "username", "password", "tls")
_SOCKS_TLS = ("enabled", "serverName", "caCert")

NOTHING = Policy(0, (), (), (), False, None, None, Limits(), Tls(), Table(()))  # noqa: FBT003
"""Nothing passes."""


def _object(said: object, where: str, names: Iterable[str], *, optional: bool = False) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise RuleError("It is an object.", where)
    known = set(names)
    for name in said:
        if name not in known:
            raise RuleError("There is no such field.", _below(where, str(name)[:40]))
    for name in () if optional else names:
        if name not in said:
            raise RuleError("It is missing.", _below(where, name))
    return said


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _list(said: object, where: str, most: int = MAX_ENTRIES) -> list[Any]:
    if not isinstance(said, list) or len(said) > most:
        raise RuleError(f"It is a list of at most {most}.", where)
    return said


def _text(said: object, where: str) -> str:
    if not isinstance(said, str):
        raise RuleError("It is a text.", where)
    return said


def _flag(said: object, where: str) -> bool:
    if not isinstance(said, bool):
        raise RuleError("It is true or false.", where)
    return said


def _whole(said: object, where: str) -> int:
    if not isinstance(said, int) or isinstance(said, bool) or said < 0:
        raise RuleError("It is a whole number, 0 or more.", where)
    return said


def _one_of(said: object, where: str, choices: tuple[str, ...]) -> str:
    if not isinstance(said, str) or said not in choices:
        raise RuleError(f"It is {' or '.join(choices)}.", where)
    return said


def _entries(said: object, where: str) -> tuple[Entry, ...]:
    found: dict[str, Entry] = {}
    for place, one in enumerate(_list(said, where)):
        at = f"{where}[{place}]"
        try:
            entry = parse_entry(_text(one, at), any_port=True, stored=True)
        except RuleError as error:
            raise error.at(at) from None
        found.setdefault(entry.text, entry)
    return tuple(found.values())


def _layer(said: object, where: str) -> Layer:
    one = _object(said, where, ("name", "mode", "first", "egress"))
    egress = _entries(one["egress"], f"{where}.egress")
    return Layer(
        _text(one["name"], f"{where}.name"),
        _one_of(one["mode"], f"{where}.mode", _MODES),
        _one_of(one["first"], f"{where}.first", _MODES),
        egress,
        Table(entry for entry in egress if not entry.deny),
        Table(entry for entry in egress if entry.deny),
    )


def _rules(said: object) -> tuple[HeaderRule, ...]:
    places = ((f"rules[{n}]", one) for n, one in enumerate(_list(said, "rules", MAX_RULES)))
    return tuple(parse_rule(_object(one, where, _RULE), where) for where, one in places)


def _placeholders(said: object) -> tuple[Placeholder, ...]:
    listed = enumerate(_list(said, "placeholders", MAX_PLACEHOLDERS))
    places = ((f"placeholders[{n}]", one) for n, one in listed)
    return tuple(parse_placeholder(_object(one, where, _PLACEHOLDER), where) for where, one in places)


def _private(said: object, where: str) -> Network:
    try:
        return ip_network(_text(said, where))
    except ValueError:
        raise RuleError("It is a network like 10.20.0.0/16.", where) from None


def _authority(said: object, where: str) -> tuple[Host, int]:
    try:
        return canonical_authority(_text(said, where).encode())
    except BadHost as error:
        raise RuleError(str(error), where) from None


def _joined(host: Host, port: int) -> str:
    return f"{written(host)}:{port}"


def _limits(said: object) -> Limits:
    one = _object(said, "limits", _LIMITS)
    return Limits(*(None if one[name] is None else _whole(one[name], f"limits.{name}") for name in _LIMITS))


def _tls(said: object) -> Tls:
    one = _object(said, "tls", _TLS)
    return Tls(*(_one_of(one[name], f"tls.{name}", choices) for name, choices in _TLS.items()))


def _socks(said: object) -> SocksProxy:
    one = _object(said, "egress_proxy", _SOCKS, optional=True)
    host, port = _authority(one.get("address"), "egress_proxy.address")
    tls = _object(one.get("tls") or {}, "egress_proxy.tls", _SOCKS_TLS, optional=True)
    return SocksProxy(
        host,
        port,
        _optional(one, "username", "egress_proxy"),
        _optional(one, "password", "egress_proxy"),
        tls=_flag(tls.get("enabled", False), "egress_proxy.tls.enabled"),
        server_name=_optional(tls, "serverName", "egress_proxy.tls"),
        ca=_optional(tls, "caCert", "egress_proxy.tls"),
    )


def _optional(said: Mapping[str, Any], name: str, where: str) -> str | None:
    value = said.get(name)
    return None if value is None else _text(value, f"{where}.{name}")


def _dump_socks(proxy: SocksProxy) -> dict[str, Any]:
    tls = {"enabled": proxy.tls, "serverName": proxy.server_name, "caCert": proxy.ca}
    return {
        "address": _joined(proxy.host, proxy.port),
        "username": proxy.username,
        "password": proxy.password,
        "tls": tls,
    }
