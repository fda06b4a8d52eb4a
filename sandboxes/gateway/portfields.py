"""Header fields on the way to a server inside a sandbox and back.

Towards it go no cookies, keys and tokens of the platform; from it comes nothing that counts on other hosts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxes.gateway import http1

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.gateway.http1 import AnswerHead, Fields

# Underscores count as dashes: many servers can't tell them apart.
_NOT_TO_GUEST = frozenset(
    {
        b"host",
        b"x-api-key",
        b"x-access-token",
        b"e2b-traffic-access-token",
        b"e2b-sandbox-id",
        b"e2b-sandbox-port",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
_NOT_FROM_GUEST = frozenset(
    {b"clear-site-data", b"service-worker-allowed", b"alt-svc", b"nel", b"report-to", b"reporting-endpoints"}
)
# On a host that other content shares, these would reach further than the sandbox's own pages.
_NOT_FROM_GUEST_SHARED = _NOT_FROM_GUEST | {
    b"set-cookie",
    b"strict-transport-security",
    b"content-security-policy",
    b"x-content-type-options",
    b"www-authenticate",
    b"refresh",
    b"link",
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-expose-headers",
}
_SHARED: Fields = [
    (b"Content-Security-Policy", b"sandbox"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Expose-Headers", b"*"),
]
_PLATFORM_COOKIES = frozenset({b"sessionid", b"csrftoken", b"messages"})
_PLATFORM_TOKEN = re.compile(rb"\b(?:e2b_[0-9a-f]{40}|gh_[0-9a-f]{16}_[0-9a-f]{64})\b")
_MOVES = frozenset({301, 302, 303, 307, 308})
_ABSOLUTE = re.compile(rb"https?://([^/?#\\@]+)(?:[/?#].*)?", re.IGNORECASE)
_RELATIVE = re.compile(rb"(?:/(?![/\\])|[^/\\:?#]+(?:[/?#]|$)|[?#]|$).*")


class LeadsAway(http1.BadAnswer):
    """A server answers with a redirect to another host, where a client would take its token along."""


def to_guest(fields: Iterable[tuple[bytes, bytes]], *, cookies: bool) -> Fields:
    """Return a client's end-to-end fields without Host and without what is the platform's."""
    kept: Fields = []
    for name, value in http1.end_to_end(tuple(fields), frozenset()):
        lowered = name.lower().replace(b"_", b"-")
        if lowered in _NOT_TO_GUEST:
            continue
        if lowered == b"cookie":
            value = without_platform_cookies(value) if cookies else b""
            if not value:
                continue
        if b"_" in value and _PLATFORM_TOKEN.search(value):
            continue
        kept.append((name, value))
    return kept


def from_guest(head: AnswerHead, *, shared_host: bool) -> Fields:
    """Return the fields of an answer that may count on the host it was asked under."""
    if shared_host:
        return http1.end_to_end(head.fields, _NOT_FROM_GUEST_SHARED) + _SHARED
    return [
        (name, host_only_cookie(value)) if name.lower() == b"set-cookie" else (name, value)
        for name, value in http1.end_to_end(head.fields, _NOT_FROM_GUEST)
    ]


def refuse_leading_away(head: AnswerHead, host: bytes) -> None:
    """Let an answer pass unless it redirects to another host than the client's. Raises LeadsAway."""
    location = head.get(b"location")
    if head.status not in _MOVES or location is None:
        return
    absolute = _ABSOLUTE.fullmatch(location)
    stays = absolute[1].lower() == host.lower() if absolute else _RELATIVE.fullmatch(location) is not None
    if not stays or any(byte <= 0x20 for byte in location):
        raise LeadsAway("the answer leads to another host")


def without_platform_cookies(value: bytes) -> bytes:
    """Return a Cookie field without the platform's own cookies."""
    pairs = [pair.strip() for pair in value.split(b";")]
    return b"; ".join(pair for pair in pairs if pair and not _is_platform_cookie(pair.partition(b"=")[0].strip()))


def _is_platform_cookie(name: bytes) -> bool:
    bare = name.lower().removeprefix(b"__host-").removeprefix(b"__secure-")
    return bare in _PLATFORM_COOKIES or bare.startswith(b"gatehouse")


def host_only_cookie(value: bytes) -> bytes:
    """Return a Set-Cookie field that counts for this host name alone: without its Domain."""
    first, *attributes = value.split(b";")
    kept = [one for one in attributes if one.partition(b"=")[0].strip().lower() != b"domain"]
    return b";".join([first, *kept])
