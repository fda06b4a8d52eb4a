"""Where a request wants to go: a pure function of method, path and headers.

One plain endpoint serves everything, so the decision is made in this order: routing headers (only on hosts
that may carry them), the first host label `<port>-<sandbox id>`, a signed file URL, the control plane.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corekit import ids

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORT_LABEL = re.compile(r"([0-9]+)-([^-]*)(?:-.*)?", re.DOTALL)
_DIGITS = re.compile(r"[0-9]{1,5}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class ToSandbox:
    """One port of one sandbox. `shared_host`: other content lives on this origin too."""

    sandbox_id: str
    port: int
    shared_host: bool


@dataclass(frozen=True, slots=True)
class ToSignedFile:
    """A signed file URL that names no sandbox."""


@dataclass(frozen=True, slots=True)
class ToControlPlane:
    """Everything that is no sandbox traffic."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that leads nowhere; `reason` is the plain text of the 400."""

    reason: str


Destination = ToSandbox | ToSignedFile | ToControlPlane | Refused

CONTROL_PLANE = ToControlPlane()
SIGNED_FILE = ToSignedFile()


def destination(*, method: str, target: str, headers: Iterable[tuple[bytes, bytes]], domain: str) -> Destination:
    """Decide where a request goes.

    `target` is the request target as it came, `headers` are the raw fields, `domain` is the platform's own
    domain or empty. Never raises.
    """
    if (not target.startswith("/") and not (target == "*" and method == "OPTIONS")) or "#" in target:
        return Refused("The request target must be a path")
    host, sandbox_id, port, has_key = _routing_fields(headers)
    if host is None or sandbox_id is _TWICE or port is _TWICE:
        return Refused("The Host and routing headers must be given once")
    name = host_name(host)
    if name is None:
        return Refused("The Host header is not valid")
    if (sandbox_id is not None or port is not None) and may_carry_routing_headers(name, domain):
        return _by_headers(sandbox_id, port)
    label = _PORT_LABEL.fullmatch(name.partition(".")[0])
    if label is not None:
        return _checked(label[2], label[1], shared_host=False)
    if not has_key and _is_signed_file(method, target):
        return SIGNED_FILE
    return CONTROL_PLANE


def host_name(host: str) -> str | None:
    """Return the lower-case name of a Host header without its port, or None when it is malformed."""
    match = _HOST.fullmatch(host)
    if match is None or len(host) > 300 or (match[2] and not 0 < int(match[2]) < 65536):
        return None
    return match[1].strip("[]").lower().removesuffix(".")


def may_carry_routing_headers(name: str, domain: str) -> bool:
    """Say whether routing headers count on this host.

    They do on localhost, on address literals, on `sandbox.<anything>` and on the platform's own domain; on
    every other name the host itself says where a request goes, so that no page can redirect its own calls.
    """
    if name == "localhost" or name.startswith("sandbox.") or (domain != "" and name == domain):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_TWICE = "\0twice"


def _routing_fields(
    headers: Iterable[tuple[bytes, bytes]],
) -> tuple[str | None, str | None, str | None, bool]:
    host: str | None = None
    sandbox_id: str | None = None
    port: str | None = None
    has_key = False
    for raw_name, value in headers:
        length = len(raw_name)
        if length == 4 and raw_name.lower() == b"host":
            host = "" if host is not None else value.decode("latin-1")
        elif length == 14 and raw_name.lower() == b"e2b-sandbox-id":
            sandbox_id = _TWICE if sandbox_id is not None else value.decode("latin-1")
        elif length == 16 and raw_name.lower() == b"e2b-sandbox-port":
            port = _TWICE if port is not None else value.decode("latin-1")
        elif length == 9 and raw_name.lower() == b"x-api-key":
            has_key = True
    return host, sandbox_id, port, has_key


def _by_headers(sandbox_id: str | None, port: str | None) -> Destination:
    if sandbox_id is None:
        return Refused("The header E2b-Sandbox-Id is missing")
    if port is None:
        return Refused("The header E2b-Sandbox-Port is missing")
    return _checked(ids.strip_client_suffix(sandbox_id), port, shared_host=True)


def _checked(sandbox_id: str, port: str, *, shared_host: bool) -> Destination:
    if not ids.is_sandbox_id(sandbox_id):
        return Refused("The sandbox id is not valid")
    if _DIGITS.fullmatch(port) is None or not 0 < int(port) < 65536:
        return Refused("The sandbox port is not valid")
    return ToSandbox(sandbox_id, int(port), shared_host)


def _is_signed_file(method: str, target: str) -> bool:
    if method not in {"GET", "HEAD", "POST", "OPTIONS"}:
        return False
    path, mark, query = target.partition("?")
    if path != "/files" or not mark:
        return False
    return any(pair.startswith("signature=") for pair in query.split("&"))
