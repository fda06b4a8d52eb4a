"""What E2B clients say of the way out, read into checked values: hosts, DNS servers, a proxy, header rules."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from corekit.errors import InvalidInput
from corekit.netrules.entries import RuleError, parse_entry
from sandboxes.e2b import fields
from sandboxes.networks import Wish
from tenants.injection import Asked, check_identities, check_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIELDS = frozenset({"allowOut", "denyOut", "dnsServers", "egressProxy", "rules"})
MAX_ENTRIES = 256
MAX_DNS_SERVERS = 10
MAX_CREDENTIAL_BYTES = 255
MAX_CERTIFICATES = 64 * 1024
EVERYWHERE = "0.0.0.0/0"
ANY_NAME = "*"
_NEEDS_DENY = (
    "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny out to block all other"
    " traffic."
)
_PEM = "-----BEGIN CERTIFICATE-----"


def wish(network: Mapping[str, object], body: Mapping[str, object], *, inside: str = "") -> Wish:
    """Return what a network object asks to reach, and to put into requests. Raises InvalidInput.

    `body` holds `allow_internet_access`, and `iam` where the sandbox is made.

    `inside` names the object that the fields are of.
    """
    allows_all = fields.boolean(body, "allow_internet_access", default=None)
    words: dict[str, Any] = {}
    named = {
        "allowOut": _entries(network, "allowOut", inside, _allowed),
        "denyOut": _entries(network, "denyOut", inside, _denied),
        "dnsServers": _entries(network, "dnsServers", inside, _dns_server, maximum=MAX_DNS_SERVERS),
    }
    # An empty list of servers is not the same as none: it leaves no server.
    words |= {name: value for name, value in named.items() if value or (value is not None and name == "dnsServers")}
    if any(map(_is_name, words.get("allowOut", ()))):
        closed = allows_all is False or EVERYWHERE in words.get("denyOut", ())
        if not closed:
            raise InvalidInput(_NEEDS_DENY, field=_label("allowOut", inside))
    shown, secrets = _proxy(network, inside)
    if shown:
        words["egressProxy"] = shown
    return Wish(
        words=words, secrets=secrets, allow_internet_access=allows_all, injected=_injected(network, body, inside)
    )


def _injected(network: Mapping[str, object], body: Mapping[str, object], inside: str) -> Asked:
    return Asked(
        rules=check_rules(network.get("rules"), _label("rules", inside)),
        identities=check_identities(fields.optional_object(body, "iam").get("tokens"), "iam.tokens"),
    )


def _label(name: str, inside: str) -> str:
    return f"{inside}.{name}" if inside else name


def _entries(
    network: Mapping[str, object],
    name: str,
    inside: str,
    check: Callable[[str], str],
    *,
    maximum: int = MAX_ENTRIES,
) -> list[str] | None:
    value, label = network.get(name), _label(name, inside)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > maximum:
        raise InvalidInput(f"{label} must be a list of at most {maximum} texts.", field=label)
    found: dict[str, None] = {}
    for entry in value:
        if not isinstance(entry, str) or not entry.isprintable():
            raise InvalidInput(f"{label} must hold texts.", field=label)
        try:
            found[check(entry.strip())] = None
        except ValueError as error:
            raise InvalidInput(f"{error} {entry[:100]}", field=label) from error
    return list(found)


def _allowed(entry: str) -> str:
    """Return an allowed address, range or name as it counts. Raises ValueError."""
    if entry == ANY_NAME:
        return entry
    try:
        return _range(entry)
    except ValueError:
        if not _is_name(entry):
            raise ValueError("invalid allowed address") from None
    try:
        # What the web's port says of it holds for any other.
        return parse_entry(f"{entry}:443").text.removesuffix(":443")
    except RuleError as error:
        raise ValueError("invalid allowed address") from error


def _denied(entry: str) -> str:
    try:
        return _range(entry)
    except ValueError as error:
        raise ValueError("invalid denied CIDR") from error


def _dns_server(entry: str) -> str:
    try:
        return str(ipaddress.IPv4Address(entry))
    except ValueError as error:
        raise ValueError("invalid DNS server") from error


def _range(entry: str) -> str:
    """Return an address, or a range of them, in its usual form. Raises ValueError."""
    if "%" in entry:
        raise ValueError("a zone is no part of an address")
    if "/" in entry:
        return str(ipaddress.ip_network(entry, strict=False))
    return str(ipaddress.ip_address(entry))


def _is_name(entry: str) -> bool:
    """Say whether an entry is a name, or looks so much like one that it is not meant as an address."""
    return entry == ANY_NAME or not (":" in entry or "/" in entry or entry.replace(".", "").isdigit())


# --- the upstream proxy


def _proxy(network: Mapping[str, object], inside: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return an upstream proxy as it may be shown, and what of it nobody is shown."""
    label = _label("egressProxy", inside)
    proxy = network.get("egressProxy")
    if proxy is None:
        return {}, {}
    if not isinstance(proxy, dict):
        raise _bad_proxy("it must be an object", label)
    shown: dict[str, Any] = {"address": _proxy_address(proxy.get("address"), label)}
    secrets: dict[str, str] = {}
    username, password = (_credential(proxy, name, label) for name in ("username", "password"))
    if username is not None:
        shown["username"] = username
    if password is not None:
        if not username:
            raise _bad_proxy("a password needs a username", label)
        secrets["password"] = password
    tls = proxy.get("tls")
    if tls is not None:
        shown["tls"], certificates = _proxy_tls(tls, label)
        secrets |= certificates
    return shown, secrets


def _proxy_address(address: object, label: str) -> str:
    if not isinstance(address, str):
        raise _bad_proxy("address must be host:port", label)
    try:
        entry = parse_entry(address.strip())
    except RuleError as error:
        raise _bad_proxy("address must be host:port", label) from error
    if entry.deny or entry.ports[0] != entry.ports[1] or address.strip().startswith("*"):
        raise _bad_proxy("address must be host:port", label)
    host, _, port = address.strip().rpartition(":")
    if (found := _address(host)) is not None and not found.is_global:
        raise _bad_proxy("address must be a public one", label)
    return f"{host.lower()}:{int(port)}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _credential(proxy: Mapping[str, object], name: str, label: str) -> str | None:
    value = proxy.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value.encode("utf-8", "replace")) <= MAX_CREDENTIAL_BYTES:
        raise _bad_proxy(f"{name} must have 1 to {MAX_CREDENTIAL_BYTES} bytes", label)
    if any(character < " " or "\ud800" <= character <= "\udfff" for character in value):
        raise _bad_proxy(f"{name} must not hold control characters", label)
    return value


def _proxy_tls(tls: object, label: str) -> tuple[dict[str, Any], dict[str, str]]:
    if not isinstance(tls, dict) or not isinstance(tls.get("enabled", True), bool):
        raise _bad_proxy("tls must be an object", label)
    shown: dict[str, Any] = {"enabled": tls.get("enabled", True)}
    name, certificates = tls.get("serverName"), tls.get("caCert")
    if name is not None:
        try:
            shown["serverName"] = parse_entry(f"{name}:443").text.removesuffix(":443")
        except RuleError as error:
            raise _bad_proxy("tls.serverName must be a host name", label) from error
    if certificates is None:
        return shown, {}
    if not isinstance(certificates, str) or len(certificates) > MAX_CERTIFICATES or _PEM not in certificates:
        raise _bad_proxy("tls.caCert must be a certificate in PEM", label)
    return shown, {"caCert": certificates}


def _bad_proxy(why: str, label: str) -> InvalidInput:
    return InvalidInput(f"Invalid egress proxy config: {why}.", field=label)
