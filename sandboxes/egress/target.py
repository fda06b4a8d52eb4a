"""Where a request wants to go: one canonical host and a port, out of the forms that a proxy is asked in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from corekit.netrules.hosts import BadHost, canonical, canonical_authority, written
from corekit.netrules.reasons import Reason
from sandboxes.egress.refusals import Refused

if TYPE_CHECKING:
    from corekit.netrules.hosts import Host

PROXY_NAME = "proxy.internal"
BROKER_NAME = "broker.gatehouse.internal"
HTTP_PORT = 80
HTTPS_PORT = 443

_ABSOLUTE = re.compile(rb"http://([^/?#]*)((?:[/?][^#]*)?)", re.IGNORECASE)
_NAMES = b"/v1/names/"


@dataclass(frozen=True, slots=True)
class Target:
    """What a flow is judged by, and what is connected to."""

    host: Host
    port: int

    @property
    def name(self) -> str:
        """The host as events show it."""
        return str(self.host)

    @property
    def entry(self) -> str:
        """The policy entry that would allow it."""
        return f"{written(self.host)}:{self.port}"

    def authority(self, usual_port: int = HTTP_PORT) -> str:
        """Return the Host header of a request to it, where this port is the usual one."""
        return written(self.host) if self.port == usual_port else self.entry


def host_of(raw: bytes) -> Host:
    """Return the canonical host of one that a client names. Raises Refused."""
    try:
        return canonical(raw)
    except BadHost:
        raise Refused(Reason.BAD_HOST) from None


def of_connect(authority: bytes) -> Target:
    """Return the target of `CONNECT host:port`. Raises Refused."""
    try:
        return Target(*canonical_authority(authority))
    except BadHost:
        raise Refused(Reason.BAD_HOST) from None


def of_authority(authority: bytes, usual_port: int = HTTP_PORT) -> Target:
    """Return what a URL or a Host header names; the usual port where it names none. Raises Refused."""
    _, colon, port = authority.rpartition(b":")
    if not colon or port.endswith(b"]"):
        return Target(host_of(authority), usual_port)
    return of_connect(authority)


def of_absolute(uri: bytes) -> tuple[Target, bytes]:
    """Return target and path of `http://host/path`. Raises Refused: no other scheme, no user, no fragment."""
    matched = _ABSOLUTE.fullmatch(uri)
    if matched is None:
        raise Refused(Reason.BAD_HOST if uri[:7].lower() == b"http://" else Reason.NOT_HTTP)
    authority, path = matched.groups()
    return of_authority(authority), path if path.startswith(b"/") else b"/" + path


def name_asked(path: bytes) -> Host | None:
    """Return the name of `/v1/names/<name>`, None for another path. Raises Refused."""
    if not path.startswith(_NAMES):
        return None
    return host_of(unquote_to_bytes(path[len(_NAMES) :]))
