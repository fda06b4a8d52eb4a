"""One rule of a policy: `["!"] host ":" ports ["/" protocol]`.

A host is a name, `*.` before a name, an address or a network; ports are one, a range or `*`. The protocol is `tls`,
`http`, `ws` (HTTP that may become a WebSocket) or `tcp` (anything). Unsaid it is `tls` on 443, `http` on 80 and `tcp`
elsewhere. An address has no name that a greeting could be held against, so for it `tcp` is meant on every port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from corekit.addresses import METADATA_NAMES, NEVER
from corekit.netrules.hosts import BadHost, Name, canonical_port, canonical_text

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

PROTOCOLS = ("tls", "http", "ws", "tcp")
ANY_PORT = (1, 65_535)
AUTO = "auto"
"""The protocol of a range of ports where none is written: each port has its own."""
_USUAL = {443: "tls", 80: "http"}
_PARTS = re.compile(r"(!?)(\[[^\]]*\]|[^:\[\]]*):([^:/]*)(?:/([a-z]*))?")
_MAX_TEXT = 400


class RuleError(ValueError):
    """A rule or a document that can't be obeyed: a sentence that says what to write, and where it stands."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field

    def at(self, field: str) -> RuleError:
        """Return the same error with the place where the text stands."""
        return RuleError(str(self), field)


@dataclass(frozen=True, slots=True)
class Suffix:
    """All names below a name, the name itself not."""

    text: str

    def __str__(self) -> str:
        """Return it as it is written in a rule."""
        return f"*.{self.text}"


Target = Name | Suffix | IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule. `text` is its only form, by which events name it; `shown` is how it was written."""

    text: str
    shown: str
    deny: bool
    host: Target
    ports: tuple[int, int]
    protocol: str

    def protocol_at(self, port: int) -> str:
        """Return what may be spoken on one of the rule's ports."""
        return _USUAL.get(port, "tcp") if self.protocol == AUTO else self.protocol


def parse_entry(text: str, *, any_port: bool = False, stored: bool = False) -> Entry:
    """Return the rule that a text stands for. Raises RuleError.

    With `any_port` it may allow all ports, which is an operator's right. With `stored` the text was checked when it
    was written, so that a newer list of public suffixes does not take the rule away.
    """
    parts = _PARTS.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if parts is None:
        raise RuleError(_advice(text))
    deny = bool(parts[1])
    host = _target(parts[2])
    ports = _ports(parts[3])
    if not deny and not stored:
        _check_allowed(host, ports, any_port=any_port)
    usual = _usual(host, ports)
    protocol = usual if parts[4] is None else parts[4]
    if parts[4] is not None and protocol not in PROTOCOLS:
        raise RuleError(f"/{protocol} is no protocol: write one of {', '.join(PROTOCOLS)}.")
    return Entry(_canonical(host, ports, protocol, usual, deny=deny), text, deny, host, ports, protocol)


def _canonical(host: Target, ports: tuple[int, int], protocol: str, usual: str, *, deny: bool) -> str:
    first, last = ports
    port = str(first) if first == last else f"{first}-{last}"
    ending = "" if protocol == usual else f"/{protocol}"
    return f"{'!' * deny}{written_target(host)}:{port}{ending}"


def written_target(host: Target) -> str:
    """Return a rule's host as it is written in a rule."""
    if isinstance(host, Name | Suffix):
        return str(host)
    text = str(host.network_address if host.prefixlen == host.max_prefixlen else host)
    return f"[{text}]" if host.version == 6 else text


def _usual(host: Target, ports: tuple[int, int]) -> str:
    first, last = ports
    if not isinstance(host, Name | Suffix):
        return "tcp"
    if first == last:
        return _USUAL.get(first, "tcp")
    return AUTO if any(first <= port <= last for port in _USUAL) else "tcp"


def _target(text: str) -> Target:
    if text.startswith("["):
        return _network(text[1:-1], text)
    if "/" in text:
        return _network(text, text)
    if "*" in text:
        return _suffix(text)
    try:
        host = canonical_text(text)
    except BadHost as error:
        raise RuleError(str(error)) from None
    return host if isinstance(host, Name) else ip_network(host)


def _network(text: str, said: str) -> IPv4Network | IPv6Network:
    if ":" in text and "/" not in text:
        try:
            host = canonical_text(said)
        except BadHost as error:
            raise RuleError(str(error)) from None
        return ip_network(str(host))
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise RuleError(f"{said!a} is no network: write it like 192.0.2.0/24 or [2001:db8::/32].") from None
    brackets = said.startswith("[")
    if (network.version == 6) != brackets:
        raise RuleError("An IPv6 network stands in brackets, an IPv4 network does not.")
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise RuleError(f"{said!a} stands for IPv4 addresses: write those.")
    first, _, length = text.partition("/")
    if ip_address(first) != network.network_address or length != str(network.prefixlen):
        raise RuleError(f"{said!a} is not in the usual form: write {written_target(network)}.")
    return network


def _suffix(text: str) -> Suffix:
    if not text.startswith("*.") or "*" in text[1:]:
        raise RuleError("A wildcard stands for whole labels at the beginning: write it like *.example.com.")
    try:
        name = canonical_text(text[2:])
    except BadHost as error:
        raise RuleError(str(error)) from None
    if not isinstance(name, Name):
        raise RuleError("A wildcard stands before a name: for addresses write a network like 192.0.2.0/24.")
    return Suffix(name.text)


def _ports(text: str) -> tuple[int, int]:
    if text == "*":
        return ANY_PORT
    first, separator, last = text.partition("-")
    try:
        ports = canonical_port(first), canonical_port(last if separator else first)
    except BadHost as error:
        raise RuleError(f"{error} Write one like 443, or a range like 8000-8080.") from None
    if ports[0] > ports[1]:
        raise RuleError(f"The range {text} ends before it begins.")
    return ports


def _check_allowed(host: Target, ports: tuple[int, int], *, any_port: bool) -> None:
    if ports == ANY_PORT and not any_port:
        raise RuleError("Only an operator allows all ports: write the port that is meant, like 443.")
    if isinstance(host, Suffix):
        require_narrow(host)
    elif isinstance(host, Name):
        if host.text in METADATA_NAMES:
            raise RuleError(f"{host} is a cloud provider's metadata service, which nobody reaches.")
    elif any(host.subnet_of(never) for never in NEVER if never.version == host.version):  # type: ignore[arg-type]
        raise RuleError(f"{written_target(host)} leads to the host itself or its cloud provider: nobody reaches it.")


def require_narrow(host: Suffix) -> None:
    """Raise RuleError for all names below one that belongs to nobody: anybody could have one of them."""
    if "." not in host.text:
        raise RuleError(f"{host} is too much: a wildcard has two labels behind it at least, like *.example.com.")
    if _suffixes().publicsuffix(host.text) == host.text:
        raise RuleError(f"{host} is too much: everybody can have a name below {host.text}.")


@cache
def _suffixes() -> PublicSuffixList:
    # Read on first use: who only obeys stored rules never needs the list.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def _advice(text: str) -> str:
    said = ascii(text[:80])
    if "://" in text:
        return f"{said} is a URL: write host and port, like api.example.com:443."
    if text.count(":") > 1 and "[" not in text:
        return f"{said} is no rule: an IPv6 address stands in brackets, like [2001:db8::1]:443."
    if ":" not in text.rpartition("]")[2]:
        return f"{said} names no port: write it like api.example.com:443."
    return f"{said} is no rule: write it like api.example.com:443."
