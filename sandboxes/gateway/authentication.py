"""Who may reach a sandbox: access tokens in a header, signatures in a file URL."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from corekit import tokens
from sandboxes.gateway import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.gateway.ingress import Ingress
    from sandboxes.gateway.routes import Grant, Route, RouteTable
    from sandboxes.gateway.settings import Limits

_REMEMBERED_SIGNATURES = 2048


class Denied(Exception):
    """The credentials are missing, wrong, expired or revoked. The message is what the client reads."""


class TrafficDenied(Exception):
    """The sandbox's ports are private, and the traffic token is missing or wrong. The message is the client's."""


class BadQuery(Exception):
    """The query of a file URL can't be read."""


class ScanLimited(Exception):
    """Too many file URLs without a sandbox were tried; try again in a second."""


@dataclass(frozen=True, slots=True)
class FileQuery:
    """The parts of a file URL's query that mean something."""

    path: str
    username: str
    signature: str | None
    expiration: int | None


def read_file_query(query: str) -> FileQuery:
    """Read a file URL's query; the first of repeated names counts. Raises BadQuery."""
    if not query.isascii():
        raise BadQuery("the query is not valid")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise BadQuery("the query is not valid") from error
    values: dict[str, str] = {}
    for name, value in pairs:
        values.setdefault(name, value)
    expiration = values.get("signature_expiration")
    if expiration is not None and not (expiration.isascii() and expiration.isdecimal() and len(expiration) < 16):
        raise BadQuery("signature_expiration must be a time in seconds")
    path = values.get("path", "")
    if "\0" in path:
        raise BadQuery("path must not contain NUL")
    return FileQuery(
        path=path,
        username=values.get("username", ""),
        signature=values.get("signature"),
        expiration=None if expiration is None else int(expiration),
    )


def by_token(route: Route, token: str | None, *, message: str = errors.UNAUTHORIZED) -> str:
    """Return the key id of a valid access token. Raises Denied."""
    key_id = tokens.key_id_of(token) if token else None
    grant = route.usable_grant(key_id) if key_id is not None else None
    if grant is None or token is None or not hmac.compare_digest(grant.token, token):
        raise Denied(message)
    return grant.key_id


def check_traffic(ingress: Ingress, token: str | None) -> None:
    """Let a call to a port pass when ports are public or it carries the traffic token. Raises TrafficDenied."""
    if ingress.public:
        return
    if not token:
        raise TrafficDenied(errors.TRAFFIC_TOKEN_MISSING)
    expected, given = ingress.traffic_token.encode(), token.encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(expected, given) or not expected:
        raise TrafficDenied(errors.TRAFFIC_TOKEN_INVALID)


class Signatures:
    """Checks signed file URLs; finds the sandbox where the URL does not name one."""

    def __init__(self, table: RouteTable, limits: Limits) -> None:
        self._table = table
        self._limits = limits
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._allowance = limits.signature_scans_per_second
        self._refilled = time.monotonic()

    def on_route(self, route: Route, query: FileQuery, operation: str) -> str:
        """Return the key id whose token signed the URL for this sandbox. Raises Denied."""
        if query.signature is None:
            raise Denied(errors.SIGNATURE_MISSING)
        grant = _signer(route.grants.values(), query, operation)
        if grant is None:
            raise Denied(errors.SIGNATURE_INVALID)
        return _unexpired(grant, query)

    def anywhere(self, query: FileQuery, operation: str) -> tuple[Route, str]:
        """Return the sandbox and key id that a URL without a sandbox was signed for.

        Only as many sandboxes as the limit says are tried, and only so many such searches a second are made.
        Raises Denied or ScanLimited.
        """
        if query.signature is None:
            raise Denied(errors.SIGNATURE_MISSING)
        if not query.signature.startswith("v1_") or len(query.signature) > 64:
            raise Denied(errors.SIGNATURE_INVALID)
        found = self._remembered(query, operation) or self._search(query, operation)
        if found is None:
            raise Denied(errors.SIGNATURE_INVALID)
        route, grant = found
        return route, _unexpired(grant, query)

    def _remembered(self, query: FileQuery, operation: str) -> tuple[Route, Grant] | None:
        known = self._known.get(query.signature or "")
        route = self._table.get(known[0]) if known is not None else None
        grant = route.grants.get(known[1]) if route is not None and known is not None else None
        if route is None or grant is None or _signer([grant], query, operation) is None:
            return None
        return route, grant

    def _search(self, query: FileQuery, operation: str) -> tuple[Route, Grant] | None:
        self._take_permit()
        tried = 0
        for route in self._table:
            tried += len(route.grants)
            if tried > self._limits.signature_candidates:
                return None
            grant = _signer(route.grants.values(), query, operation)
            if grant is not None:
                self._known[query.signature or ""] = (route.id, grant.key_id)
                if len(self._known) > _REMEMBERED_SIGNATURES:
                    self._known.popitem(last=False)
                return route, grant
        return None

    def _take_permit(self) -> None:
        now = time.monotonic()
        rate = self._limits.signature_scans_per_second
        self._allowance = min(rate, self._allowance + (now - self._refilled) * rate)
        self._refilled = now
        if self._allowance < 1:
            raise ScanLimited
        self._allowance -= 1


def _signer(grants: Iterable[Grant], query: FileQuery, operation: str) -> Grant | None:
    """Return the grant whose token gives the query's signature."""
    signature = (query.signature or "").encode("utf-8", "replace")
    found = None
    for grant in grants:
        expected = tokens.file_signature(grant.token, query.path, operation, query.username, query.expiration).encode(
            "ascii"
        )
        if hmac.compare_digest(expected, signature):
            found = grant
    return found


def _unexpired(grant: Grant, query: FileQuery) -> str:
    now = time.time()
    if query.expiration is not None and query.expiration < int(now):
        raise Denied(errors.SIGNATURE_EXPIRED)
    if grant.expired(int(now * 1000)):
        raise Denied(errors.SIGNATURE_INVALID)
    return grant.key_id
