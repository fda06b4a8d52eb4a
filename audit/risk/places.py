"""What a path or a host means to a judge of code: workspace, system, or one of the places that matter."""

from __future__ import annotations

import functools
import ipaddress
import json
import posixpath
import re
import unicodedata
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

_TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "rules" / "places.json").read_bytes())
_HOME = re.compile(r"^(?:/root(?=/\.)|/home/[^/]+|\$HOME|\$\{HOME\}|~[\w-]*)(?=/|$)")
_OTHER_ROOT = re.compile(r"^/proc/(?:self|thread-self|\d+)/(?:root|cwd)(?=/|$)")
_CLIMBS_TO = re.compile(r"^(?:\.\./)+((?:etc|root|proc|sys|dev|var|run|boot|home|usr|lib|bin|opt)(?:/.*)?)$")
# So far up, nobody's workspace goes on.
_CLIMBS_OUT = re.compile(r"\.\.(?:/\.\.){3,}(?:/\*)?")
_URL_HOST = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//(?:[^/@\s]*@)?(\[[0-9a-f:.%]+\]|[^/:?#\s\[\]]+)", re.IGNORECASE)
_BARE_HOST = re.compile(r"^(?:[^/@\s]*@)?(\[[0-9a-f:.]+\]|[\w.-]+)(?::\d+)?(?:[/?#].*)?$", re.IGNORECASE)
# Name servers that answer with the address in the name.
_NAMED_ADDRESS = re.compile(r"(?:.*[.-])?(\d{1,3}(?:[.-]\d{1,3}){3})\.(?:nip|sslip|xip)\.io")
_NUMBER = re.compile(r"^(?:0x[0-9a-f]+|[0-9]+)$", re.IGNORECASE)
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def _compiled(patterns: list[str]) -> re.Pattern[str]:
    """Compile path patterns: `*` stays inside a folder's name, `**` crosses folders."""
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns), re.DOTALL)


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(meaning.get(part, re.escape(part)) for part in parts)


_WORKSPACE = _compiled(_TABLE["workspace"])
_CLASSES = [(entry["class"], entry.get("write_only", False), _compiled(entry["paths"])) for entry in _TABLE["classes"]]
_EXAMPLES = [(entry["class"], path) for entry in _TABLE["classes"] for path in entry["examples"]]
_ROOTS = frozenset(_TABLE["roots"])
_PRIVATE = _compiled(_TABLE["private"])
_METADATA = frozenset(_TABLE["metadata_hosts"])
_DROPS: list[str] = _TABLE["exfiltration_hosts"]


@functools.lru_cache(maxsize=4096)
def normal_path(path: str) -> str:
    """Return a path as it is compared: home as `~`, no `.`, no detour through /proc, climbing resolved."""
    path = path.removeprefix("file://")
    if climbed := _CLIMBS_TO.match(path):
        path = "/" + climbed[1]
    path = _HOME.sub("~", path)
    if path.startswith(("/", "~")):
        path = posixpath.normpath("/" + path.lstrip("/")) if path.startswith("/") else posixpath.normpath(path)
        if path.startswith("/proc/"):
            path = posixpath.normpath("/" + _OTHER_ROOT.sub("", path).lstrip("/"))
        return _HOME.sub("~", path)
    return posixpath.normpath(path) if path else ""


@functools.lru_cache(maxsize=4096)
def path_classes(path: str, *, writing: bool = False) -> frozenset[str]:
    """Return what a path is: `secret`, `device` and so on, else `workspace` or `system`. Patterns count as well."""
    place = normal_path(path)
    found = {name for name, write_only, paths in _CLASSES if (writing or not write_only) and paths.fullmatch(place)}
    if not found and any(mark in place for mark in "*?["):
        found = {name for name, example in _EXAMPLES if _may_match(example, place)}
    if found:
        return frozenset(found)
    inside = not place.startswith("/") or _WORKSPACE.fullmatch(place) is not None
    return frozenset({"workspace" if inside else "system"})


def _may_match(example: str, pattern: str) -> bool:
    ours, theirs = example.split("/"), pattern.split("/")
    if len(ours) != len(theirs) or not any(part.strip("*?[]") for part in theirs):
        return False
    return all(fnmatchcase(part, mask) for part, mask in zip(ours, theirs, strict=True))


def is_private(path: str) -> bool:
    """Whether a file holds credentials that the workspace may use, but that nobody sends away."""
    return (
        not path_classes(path).isdisjoint({"secret", "environment"})
        or _PRIVATE.fullmatch(normal_path(path)) is not None
    )


def is_root(path: str) -> bool:
    """Whether deleting this tree deletes the system or somebody's home."""
    place = normal_path(path)
    return place in _ROOTS or _CLIMBS_OUT.fullmatch(place) is not None


def url_host(text: str) -> str | None:
    """Return the host of a URL, or None when the text is none."""
    found = _URL_HOST.match(text)
    return found[1].strip("[]").rstrip(".").lower() if found else None


def bare_host(text: str) -> str | None:
    """Return the host of a URL or of what a network client takes without a scheme: `host:port/path`."""
    found = url_host(text)
    if found is not None:
        return found
    bare = _BARE_HOST.match(text)
    return bare[1].strip("[]").rstrip(".").lower() if bare else None


@functools.lru_cache(maxsize=4096)
def host_classes(host: str) -> frozenset[str]:
    """Return what a host is: `loopback`, `metadata`, `drop`, `address`, `private` or `name`, in all spellings."""
    # Clients read full-width letters and circled digits as the plain ones.
    host = unicodedata.normalize("NFKC", host).strip("[]").rstrip(".").lower()
    if host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        return frozenset({"loopback"})
    if found := _NAMED_ADDRESS.fullmatch(host):
        host = found[1].replace("-", ".")
    address = numeric_address(host)
    if (str(address) if address else host) in _METADATA:
        return frozenset({"metadata"})
    if address is None:
        return frozenset({"drop" if any(fnmatchcase(host, pattern) for pattern in _DROPS) else "name"})
    if address.is_loopback or address.is_unspecified:
        return frozenset({"loopback"})
    documented = str(address).startswith(("192.0.2.", "198.51.100.", "203.0.113."))
    return frozenset({"address", "private"} if address.is_private and not documented else {"address"})


def numeric_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a numeric host means to inet_aton: decimal, octal, hexadecimal, one to four parts."""
    if ":" in host:
        return _address6(host)
    parts = host.split(".")
    if not 1 <= len(parts) <= 4 or not all(_NUMBER.match(part) for part in parts):
        return None
    numbers = [_number(part) for part in parts]
    if None in numbers:
        return None
    *leading, last = [number for number in numbers if number is not None]
    if any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):
        return None
    value = last
    for place, number in enumerate(leading):
        value += number << (8 * (3 - place))
    return ipaddress.IPv4Address(value)


def _number(text: str) -> int | None:
    try:
        if text[:2].lower() == "0x":
            return int(text, 16)
        return int(text, 8) if text.startswith("0") and len(text) > 1 else int(text)
    except ValueError:
        return None


def _address6(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.IPv6Address(host.split("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address
